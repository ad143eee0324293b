// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/casemate-build/internal/cosign"
	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

const (
	// passphraseVariable is the one that cosign reads.
	passphraseVariable = "COSIGN_PASSWORD"
	maxPassphraseBytes = 4 << 10
	// maxReferenceBytes is the longest name that registries know.
	maxReferenceBytes = 512
)

type signCommand struct {
	streams
	registry       registryFlags
	keyFile        string
	passphraseFile string
	reference      string
	recursive      bool
	asJSON         bool
}

// signature is the result for one manifest or index.
type signature struct {
	Digest   string `json:"digest"`
	Location string `json:"location"`
	Count    int    `json:"count"`
	Added    bool   `json:"added"`
}

type signed struct {
	Image      string      `json:"image"`
	Reference  string      `json:"reference"`
	Signatures []signature `json:"signatures"`
}

func newSign(s streams) *cobra.Command {
	sc := &signCommand{streams: s}
	c := &cobra.Command{
		Use:   "sign IMAGE --key FILE [flags]",
		Short: "Sign an image with a key, in cosign's format",
		Long: `Sign an image with an ECDSA P-256 key, in cosign's format. The signature is stored
beside the image under the tag sha256-HEX.sig; signatures that are there already
are kept. There is no transparency log: cosign verifies it with --key and
--insecure-ignore-tlog.

IMAGE is docker://REFERENCE, REGISTRY/REFERENCE or oci:DIR[:TAG]. Of an index the
index is signed, with --recursive its images too. Signing one image from two
places at once can lose one of the signatures: registries have no locks.`,
		Args: exactly("IMAGE"),
		RunE: func(c *cobra.Command, args []string) error { return sc.run(c.Context(), args[0]) },
	}
	sc.registry.bind(c)
	c.Flags().StringVar(&sc.keyFile, "key", "", "PEM `FILE` with the private key, PKCS #8 or cosign's")
	c.Flags().StringVar(&sc.passphraseFile, "passphrase-file", "", "`FILE` with the passphrase of a key of cosign's, instead of $"+passphraseVariable)
	c.Flags().StringVar(&sc.reference, "reference", "", "`NAME` that the signature is for, instead of the repository")
	c.Flags().BoolVar(&sc.recursive, "recursive", false, "sign the images of an index too")
	c.Flags().BoolVar(&sc.asJSON, "json", false, "print JSON")
	return c
}

func (sc *signCommand) run(ctx context.Context, name string) error {
	if sc.keyFile == "" {
		return usagef("--key is missing")
	}
	client, err := sc.registry.client()
	if err != nil {
		return err
	}
	location, err := client.Parse(name)
	if err != nil {
		return usagef("IMAGE: %w", err)
	}
	reference, err := sc.signedReference(location)
	if err != nil {
		return err
	}
	key, err := readSigningKey(sc.keyFile, sc.passphraseFile)
	if err != nil {
		return err
	}
	content, err := client.Open(ctx, location)
	if err != nil {
		return err
	}
	digests, err := sc.digests(content)
	if err != nil {
		return err
	}
	result := signed{Image: location.String(), Reference: reference}
	for _, digest := range digests {
		s, err := sc.sign(ctx, client, location, reference, digest, key)
		if err != nil {
			return fmt.Errorf("signing %s: %w", digest, err)
		}
		result.Signatures = append(result.Signatures, s)
	}
	return sc.print(result)
}

// signedReference is the name that verifiers compare with the one they were
// asked for.
func (sc *signCommand) signedReference(l image.Location) (string, error) {
	switch {
	case len(sc.reference) > maxReferenceBytes:
		return "", usagef("--reference: %d bytes, want at most %d", len(sc.reference), maxReferenceBytes)
	case sc.reference != "":
		return sc.reference, nil
	case l.Ref != nil:
		return l.Ref.Context().Name(), nil
	default:
		return "", usagef("--reference is missing: a layout does not say by what name its image will be pulled")
	}
}

// readSigningKey reads a private key, with the passphrase of its file or of the environment
// if it needs one.
func readSigningKey(file, passphraseFile string) (*ecdsa.PrivateKey, error) {
	text, err := readFile(file, cosign.MaxKeyBytes)
	defer clear(text)
	if err != nil {
		return nil, fmt.Errorf("reading signing key: %w", err)
	}
	passphrase := []byte(os.Getenv(passphraseVariable))
	if passphraseFile != "" {
		passphrase, err = readFile(passphraseFile, maxPassphraseBytes)
		if err != nil {
			return nil, fmt.Errorf("reading passphrase: %w", err)
		}
	}
	defer clear(passphrase)
	key, err := cosign.ParsePrivateKey(text, bytes.TrimRight(passphrase, "\r\n"))
	if errors.Is(err, cosign.ErrPassphrase) {
		return nil, fmt.Errorf("%w: give it with --passphrase-file or $%s", err, passphraseVariable)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// digests are what to sign: the manifest or index, then its images.
func (sc *signCommand) digests(content *image.Content) ([]v1.Hash, error) {
	digests := []v1.Hash{content.Descriptor.Digest}
	if content.Index == nil || !sc.recursive {
		return digests, nil
	}
	index, err := content.ReadIndex()
	if err != nil {
		return nil, err
	}
	for _, desc := range index.Manifests {
		digests = append(digests, desc.Digest)
	}
	return digests, nil
}

func (sc *signCommand) sign(ctx context.Context, client *image.Client, l image.Location, reference string, digest v1.Hash, key *ecdsa.PrivateKey) (signature, error) {
	where := image.Location{Dir: l.Dir, Tag: cosign.Tag(digest)}
	if l.Ref != nil {
		where = image.Location{Ref: l.Ref.Context().Tag(cosign.Tag(digest))}
	}
	existing, err := client.Open(ctx, where)
	if err != nil && !image.IsNotFound(err) {
		return signature{}, err
	}
	if err != nil {
		existing = nil
	}
	payload, err := cosign.Payload(reference, digest)
	if err != nil {
		return signature{}, err
	}
	attached, err := cosign.Attach(existing, payload, key)
	if err != nil {
		return signature{}, err
	}
	s := signature{Digest: digest.String(), Location: where.String(), Count: attached.Count, Added: attached.Added}
	if !attached.Added {
		return s, nil
	}
	return s, client.Write(ctx, where, &image.Content{Image: attached.Image})
}

func (sc *signCommand) print(result signed) error {
	if sc.asJSON {
		return printJSON(sc.out, result)
	}
	for _, s := range result.Signatures {
		verb := "signed"
		if !s.Added {
			verb = "was signed with this key already:"
		}
		if _, err := fmt.Fprintf(sc.out, "%s %s as %s\n  signatures: %d in %s\n", verb, s.Digest, result.Reference, s.Count, s.Location); err != nil {
			return err
		}
	}
	return nil
}
