// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
	"github.com/casemate/casemate/cmd/casemate-build/internal/podpolicy"
)

// maxPodBytes is what the API server takes for one object.
const maxPodBytes = 3 << 20

type agentPolicy struct {
	streams
	registry registryFlags
	platform string
	output   string
	noLogs   bool
	exec     []string
}

func newAgentPolicy(s streams) *cobra.Command {
	ap := &agentPolicy{streams: s}
	c := &cobra.Command{
		Use:   "agent-policy POD [flags]",
		Short: "Write the agent policy of a pod from its YAML",
		Long: `Write the agent policy of the pods in POD, a file with Kubernetes objects: the
command lines, environments, users, capabilities, mounts and probes that the host
may ask a guest for. Manifests and configs of the images are read, layers are not.
Put the policy into initdata:

    casemate-build agent-policy pod.yaml -o policy.rego
    casemate-build initdata --set policy.rego=policy.rego ...

What the file leaves open, a value from a Secret for instance, is named on standard
error. What no confidential guest gives, such as hostPath, is an error.`,
		Args: exactly("POD"),
		RunE: func(c *cobra.Command, args []string) error { return ap.run(c.Context(), args[0]) },
	}
	ap.registry.bind(c)
	c.Flags().StringVar(&ap.platform, "platform", "linux/amd64", "`OS/ARCH` of the image to take from an index")
	c.Flags().StringVarP(&ap.output, "output", "o", "-", "`FILE` to write; - for standard output")
	c.Flags().BoolVar(&ap.noLogs, "no-logs", false, "do not let the host read what containers print")
	c.Flags().StringArrayVar(&ap.exec, "exec", nil, "a `NAME=[\"PROGRAM\",...]` that may run in a container beside its probes and hooks; repeatable")
	return c
}

func (ap *agentPolicy) run(ctx context.Context, name string) error {
	text, err := readFile(name, maxPodBytes)
	if err != nil {
		return fmt.Errorf("reading the pod: %w", err)
	}
	client, err := ap.registry.client()
	if err != nil {
		return err
	}
	platform, err := v1.ParsePlatform(ap.platform)
	if err != nil {
		return usagef("--platform: %w", err)
	}
	options := podpolicy.Options{NoLogs: ap.noLogs}
	for _, line := range ap.exec {
		e, err := podpolicy.ParseExec(line)
		if err != nil {
			return usagef("--exec: %w", err)
		}
		options.Exec = append(options.Exec, e)
	}
	policy, err := podpolicy.Generate(ctx, text, &configs{client, *platform}, options)
	if err != nil {
		return fmt.Errorf("writing the policy of %s: %w", name, err)
	}
	for _, note := range policy.Notes {
		fmt.Fprintln(ap.err, "note: "+printable(note))
	}
	if ap.output == "-" {
		_, err = ap.out.Write(policy.Rego)
		return err
	}
	return replaceFile(ap.output, policy.Rego, publicFileMode)
}

// configs reads images' configs from registries.
type configs struct {
	client   *image.Client
	platform v1.Platform
}

func (s *configs) Config(ctx context.Context, reference string) (*podpolicy.ImageConfig, error) {
	location, err := s.client.Parse("docker://" + reference)
	if err != nil {
		return nil, err
	}
	content, err := s.client.Open(ctx, location)
	if err != nil {
		return nil, err
	}
	img, desc, err := s.choose(content)
	if err != nil {
		return nil, err
	}
	manifest, err := image.ReadManifest(img, desc)
	if err != nil {
		return nil, err
	}
	raw, err := image.ReadConfig(img, manifest)
	if err != nil {
		return nil, err
	}
	return podpolicy.ParseConfig(desc.Digest.String(), raw)
}

// choose takes the platform's image.
func (s *configs) choose(content *image.Content) (v1.Image, v1.Descriptor, error) {
	if content.Image != nil {
		return content.Image, content.Descriptor, nil
	}
	index, err := content.ReadIndex()
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	for _, desc := range index.Manifests {
		if desc.Platform != nil && desc.Platform.Satisfies(s.platform) {
			img, err := content.Index.Image(desc.Digest)
			return img, desc, err
		}
	}
	return nil, v1.Descriptor{}, errors.New("no image for " + s.platform.String() + " in the index")
}
