// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

//go:embed rules.rego
var rules string

// Images reads the configs of images.
type Images interface {
	Config(ctx context.Context, reference string) (*ImageConfig, error)
}

// Options are what the pod file does not say.
type Options struct {
	// NoLogs closes the containers' output to the host.
	NoLogs bool
	// Exec are further command lines that may run in a container, beside its probes' and hooks'.
	Exec []Exec
}

// Exec is one command line of a container.
type Exec struct {
	Container string
	Argv      []string
}

// ParseExec reads NAME=ARGV, ARGV being a JSON array of strings: the form in which a guest that refused a probe names
// it.
func ParseExec(text string) (Exec, error) {
	name, list, ok := strings.Cut(text, "=")
	e := Exec{Container: name}
	if err := json.Unmarshal([]byte(list), &e.Argv); !ok || name == "" || err != nil || len(e.Argv) == 0 {
		return Exec{}, fmt.Errorf(`%q: want CONTAINER=["PROGRAM","ARGUMENT",...]`, text)
	}
	return e, nil
}

// allow adds the command lines to the containers of that name.
func (o Options) allow(list []container) error {
	for _, e := range o.Exec {
		found := false
		for i := range list {
			if list[i].Name != e.Container {
				continue
			}
			found = true
			if !slices.ContainsFunc(list[i].Exec, func(have []string) bool { return slices.Equal(have, e.Argv) }) {
				list[i].Exec = append(list[i].Exec, e.Argv)
			}
		}
		if !found {
			return fmt.Errorf("allowing a command line: there is no container %s", e.Container)
		}
	}
	return nil
}

// Policy is a generated policy.
type Policy struct {
	Rego  []byte
	Notes []string // what it leaves to the host
}

// Generate writes the policy for all pods of a YAML file. The same file and images
// give the same bytes.
func Generate(ctx context.Context, text []byte, images Images, o Options) (*Policy, error) {
	pods, err := parsePods(text)
	if err != nil {
		return nil, err
	}
	out := &Policy{}
	var data struct {
		Logs       bool        `json:"logs"`
		Containers []container `json:"containers"`
	}
	data.Logs = !o.NoLogs
	for n, p := range pods {
		for _, list := range [][]containerSpec{p.InitContainers, p.Containers} {
			for i := range list {
				img, err := images.Config(ctx, list[i].Image)
				if err != nil {
					return nil, fmt.Errorf("reading the config of image %s: %w", list[i].Image, err)
				}
				c, notes, err := p.build(&list[i], img)
				if err != nil {
					return nil, fmt.Errorf("pod %s: %w", p.name, err)
				}
				c.Pod, c.Key = n, fmt.Sprintf("%d/%s", n, c.Name)
				data.Containers = append(data.Containers, c)
				out.Notes = append(out.Notes, notes...)
			}
		}
	}
	if err := o.allow(data.Containers); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(rules)
	b.WriteString("\npolicy_data := ")
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(data); err != nil {
		return nil, fmt.Errorf("writing the policy's data: %w", err)
	}
	out.Rego = b.Bytes()
	return out, nil
}
