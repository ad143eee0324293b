// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/casemate-build/internal/encrypt"
	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

type encryptCommand struct {
	streams
	kek      kekFlags
	registry registryFlags
	layers   []int
	platform string
	tempDir  string
	asJSON   bool
}

// encrypted is the result for programs.
type encrypted struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Digest      string `json:"digest"`
	MediaType   string `json:"media_type"`
	KeyID       string `json:"key_id"`
	KeyRandom   bool   `json:"key_random"`
	Keybroker   string `json:"keybroker,omitempty"`
	Workload    string `json:"workload,omitempty"`
	// Registered is whether the keybroker knows the workload already.
	Registered bool            `json:"registered"`
	Images     []encrypt.Image `json:"images"`
}

func newEncrypt(s streams) *cobra.Command {
	e := &encryptCommand{streams: s}
	c := &cobra.Command{
		Use:   "encrypt SRC DST --key-id kbs:///REPOSITORY/TYPE/TAG [flags]",
		Short: "Encrypt the layers of an image",
		Long: `Encrypt the layers of an image, so that only guests that get the key can unpack it.

SRC and DST are oci:DIR, oci:DIR:TAG or docker://REFERENCE. The key is registered
at the keybroker before anything is written to DST; if that fails, nothing is.`,
		Args: exactly("SRC", "DST"),
		RunE: func(c *cobra.Command, args []string) error { return e.run(c.Context(), args[0], args[1]) },
	}
	e.kek.bind(c)
	e.registry.bind(c)
	c.Flags().IntSliceVar(&e.layers, "layer", nil, "`NUMBER` of a layer to encrypt, from 0, or from -1 for the last downwards; repeatable; all by default")
	c.Flags().StringVar(&e.platform, "platform", "", "`OS/ARCH[/VARIANT]` of the one image of an index to take; all by default")
	c.Flags().StringVar(&e.tempDir, "temp-dir", "", "`DIR` where encrypted layers wait, instead of "+os.TempDir())
	c.Flags().BoolVar(&e.asJSON, "json", false, "print JSON")
	return c
}

func (e *encryptCommand) run(ctx context.Context, from, to string) error {
	if err := e.kek.check(); err != nil {
		return err
	}
	client, err := e.registry.client()
	if err != nil {
		return err
	}
	source, target, err := parseBoth(client, from, to)
	if err != nil {
		return err
	}
	options := encrypt.Options{Layers: e.layers, TempDir: e.tempDir, Progress: e.progress}
	if e.platform != "" {
		if options.Platform, err = v1.ParsePlatform(e.platform); err != nil {
			return usagef("--platform: %w", err)
		}
	}
	if err := image.CheckTarget(target); err != nil {
		return err
	}
	key, err := e.kek.open(ctx)
	if err != nil {
		return err
	}
	defer key.Close()
	options.Key = encrypt.Key{KEK: key.kek, ID: key.id}

	plain, err := client.Open(ctx, source)
	if err != nil {
		return err
	}
	result, err := encrypt.Encrypt(ctx, plain, options)
	if err != nil {
		return fmt.Errorf("encrypting %s: %w", source, err)
	}
	err = e.release(ctx, client, key, target, result)
	if err = errors.Join(err, result.Close()); err != nil {
		return err
	}
	return e.print(source, target, key, result)
}

// release registers the key and then writes the image.
func (e *encryptCommand) release(ctx context.Context, client *image.Client, key *heldKey, target image.Location, result *encrypt.Result) error {
	if err := key.publish(ctx); err != nil {
		return err
	}
	if err := client.Write(ctx, target, &result.Content); err != nil {
		return errors.Join(err, key.withdraw(ctx))
	}
	return nil
}

// parseBoth refuses pairs that leave the plain layers beside the encrypted
// ones, where whoever may read the one may read the other.
func parseBoth(client *image.Client, from, to string) (source, target image.Location, err error) {
	if source, err = client.Parse(from); err != nil {
		return source, target, usagef("SRC: %w", err)
	}
	if target, err = client.Parse(to); err != nil {
		return source, target, usagef("DST: %w", err)
	}
	switch {
	case source.Ref != nil && target.Ref != nil && source.Ref.Context().Name() == target.Ref.Context().Name():
		err = usagef("SRC and DST are in one repository, %s: the plain layers would stay beside the encrypted ones", target.Ref.Context().Name())
	case source.Ref == nil && target.Ref == nil && sameDir(source.Dir, target.Dir):
		err = usagef("SRC and DST are in one layout, %s: the plain layers would stay beside the encrypted ones", target.Dir)
	}
	return source, target, err
}

func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// progress tells a person at a terminal that something happens.
func (e *encryptCommand) progress(l encrypt.Layer) {
	if isTerminal(e.err) {
		fmt.Fprintf(e.err, "layer %d  %s\n", l.Number, state(l))
	}
}

func state(l encrypt.Layer) string {
	if !l.Encrypted {
		return "left as it is"
	}
	return fmt.Sprintf("encrypted, %d bytes", l.Size)
}

func (e *encryptCommand) print(source, target image.Location, key *heldKey, result *encrypt.Result) error {
	digest := result.Content.Descriptor.Digest.String()
	if e.asJSON {
		return printJSON(e.out, encrypted{
			Source: source.String(), Destination: target.String(), Digest: digest,
			MediaType: string(result.Content.Descriptor.MediaType), KeyID: key.id, KeyRandom: key.generated,
			Keybroker: e.kek.keybroker, Workload: e.kek.workload, Registered: key.registered, Images: result.Images,
		})
	}
	for _, img := range result.Images {
		fmt.Fprintln(e.out, strings.TrimSpace(fmt.Sprintf("image   %s  %s", img.Digest, img.Platform)))
		for _, l := range img.Layers {
			fmt.Fprintf(e.out, "  layer %d  %s  %s\n", l.Number, l.Digest, state(l))
		}
	}
	_, err := fmt.Fprintf(e.out, "key     %s\nwrote   %s\ndigest  %s\n", key, target, digest)
	return err
}
