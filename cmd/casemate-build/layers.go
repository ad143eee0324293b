// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
	"github.com/casemate/casemate/cmd/casemate-build/internal/layers"
)

type layersCommand struct {
	streams
	registry registryFlags
	platform string
	asJSON   bool
}

// layered is the result for programs.
type layered struct {
	Source      string         `json:"source"`
	Destination string         `json:"destination"`
	Digest      string         `json:"digest"`
	MediaType   string         `json:"media_type"`
	Layers      []layers.Layer `json:"layers"`
}

func newLayers(s streams) *cobra.Command {
	l := &layersCommand{streams: s}
	c := &cobra.Command{
		Use:   "layers SRC DST DIR [flags]",
		Short: "Make an image's layers as devices that a host hands to guests",
		Long: `Write each layer of SRC to DIR as a device, an EROFS image with its dm-verity tree, and to DST the same
image with what pins each device as annotations of its layers. Sign DST: a guest then takes the devices from
its host, checks them block by block, and downloads no layer.

SRC and DST are oci:DIR, oci:DIR:TAG or docker://REFERENCE. The same SRC always gives the same bytes. An
image that is not to be changed can have its pins in a guest's measured configuration instead: --json prints them.`,
		Args: exactly("SRC", "DST", "DIR"),
		RunE: func(c *cobra.Command, args []string) error { return l.run(c.Context(), args[0], args[1], args[2]) },
	}
	l.registry.bind(c)
	c.Flags().StringVar(&l.platform, "platform", "", "`OS/ARCH[/VARIANT]` of the image to take, where SRC is an index")
	c.Flags().BoolVar(&l.asJSON, "json", false, "print JSON")
	return c
}

func (l *layersCommand) run(ctx context.Context, from, to, dir string) error {
	client, err := l.registry.client()
	if err != nil {
		return err
	}
	source, err := client.Parse(from)
	if err != nil {
		return usagef("SRC: %w", err)
	}
	target, err := client.Parse(to)
	if err != nil {
		return usagef("DST: %w", err)
	}
	if err := image.CheckTarget(target); err != nil {
		return err
	}
	content, err := client.Open(ctx, source)
	if err != nil {
		return err
	}
	if content, err = l.choose(content); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	result, err := layers.Make(ctx, content, dir, l.progress)
	if err != nil {
		return fmt.Errorf("making the devices of %s: %w", source, err)
	}
	if err := client.Write(ctx, target, &result.Content); err != nil {
		return err
	}
	return l.print(source, target, result)
}

// choose takes the one image of an index that --platform names.
func (l *layersCommand) choose(content *image.Content) (*image.Content, error) {
	if content.Image != nil {
		if l.platform != "" {
			return nil, usagef("--platform: this is one image and no index")
		}
		return content, nil
	}
	if l.platform == "" {
		return nil, usagef("--platform is missing: this is an index")
	}
	want, err := v1.ParsePlatform(l.platform)
	if err != nil {
		return nil, usagef("--platform: %w", err)
	}
	index, err := content.ReadIndex()
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool {
		return !d.MediaType.IsImage() || d.Platform == nil || !d.Platform.Satisfies(*want)
	})
	if len(found) != 1 {
		return nil, fmt.Errorf("the index has %d images for %s, want one", len(found), want)
	}
	img, err := content.Index.Image(found[0].Digest)
	if err != nil {
		return nil, err
	}
	return &image.Content{Descriptor: found[0], Image: img}, nil
}

// progress tells a person at a terminal that something happens.
func (l *layersCommand) progress(made layers.Layer) {
	if isTerminal(l.err) {
		fmt.Fprintf(l.err, "layer %d  %s, %d bytes\n", made.Number, made.File, made.Size)
	}
}

func (l *layersCommand) print(source, target image.Location, r *layers.Result) error {
	digest := r.Content.Descriptor.Digest.String()
	if l.asJSON {
		return printJSON(l.out, layered{
			Source: source.String(), Destination: target.String(), Digest: digest, MediaType: string(r.Content.Descriptor.MediaType), Layers: r.Layers,
		})
	}
	var text strings.Builder
	for _, made := range r.Layers {
		fmt.Fprintf(&text, "layer %d  %s\n  device  %s, %d bytes\n", made.Number, made.Digest, made.File, made.Size)
		for _, name := range slices.Sorted(maps.Keys(made.Annotations)) {
			fmt.Fprintf(&text, "  %s=%s\n", name, made.Annotations[name])
		}
	}
	_, err := fmt.Fprintf(l.out, "%swrote   %s\ndigest  %s\n", text.String(), target, digest)
	return err
}
