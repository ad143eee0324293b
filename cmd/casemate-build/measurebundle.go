// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/measured"
)

func newMeasureBundle(s streams) *cobra.Command {
	var release, keyFile, passphraseFile, out string
	c := &cobra.Command{
		Use:   "bundle --release NAME --key FILE -o FILE RESULT...",
		Short: "Join results of measure into one signed file",
		Long: `Join files that measure --json wrote, at most one of each kind, into one file that is
signed with a key of keygen (DSSE, ECDSA P-256 with SHA-256). keybroker register takes
its values with --values, measure diff compares two of them; both check the signature.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if release == "" || keyFile == "" || out == "" || len(args) == 0 {
				return usagef("--release, --key, --out and a result are all needed")
			}
			b := measured.Bundle{Release: release}
			for _, name := range args {
				r, err := readResult(name)
				if err != nil {
					return err
				}
				b.Results = append(b.Results, r)
			}
			key, err := readSigningKey(keyFile, passphraseFile)
			if err != nil {
				return err
			}
			text, err := b.Sign(key)
			if err != nil {
				return err
			}
			if err := writeNewFile(out, text, publicFileMode); err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.out, "wrote    %s (%d bytes): release %s, %d results\n", out, len(text), printable(release), len(b.Results))
			return err
		},
	}
	c.Flags().StringVar(&release, "release", "", "`NAME` of the release, for people")
	c.Flags().StringVar(&keyFile, "key", "", "PEM `FILE` with the private key, PKCS #8 or cosign's")
	c.Flags().StringVar(&passphraseFile, "passphrase-file", "", "`FILE` with the passphrase of a key of cosign's, instead of $"+passphraseVariable)
	c.Flags().StringVarP(&out, "out", "o", "", "new `FILE` to write")
	return c
}

// readPublicKey reads the key that reference values are checked with.
func readPublicKey(name string) (*ecdsa.PublicKey, error) {
	text, err := readFile(name, maxCertBytes)
	if err != nil {
		return nil, err
	}
	return measured.ParseKey(text)
}

// readBundle reads a bundle and checks its signature.
func readBundle(name, keyFile string) (measured.Bundle, error) {
	key, err := readPublicKey(keyFile)
	if err != nil {
		return measured.Bundle{}, err
	}
	text, err := readFile(name, measured.MaxBundleSize)
	if err != nil {
		return measured.Bundle{}, err
	}
	b, err := measured.Open(text, key)
	if err != nil {
		return measured.Bundle{}, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// diffBundles compares two releases, kind by kind.
func diffBundles(s streams, names []string, keyFile string, asJSON bool) error {
	before, err := readBundle(names[0], keyFile)
	if err != nil {
		return err
	}
	after, err := readBundle(names[1], keyFile)
	if err != nil {
		return err
	}
	all := make(map[string]measured.Difference)
	for _, kind := range []string{measured.SNP, measured.TDX, measured.TPM} {
		a, had := before.Of(kind)
		b, has := after.Of(kind)
		if !had && !has {
			continue
		}
		if all[kind], err = measured.Diff(orEmpty(a, kind), orEmpty(b, kind)); err != nil {
			return err
		}
	}
	if asJSON {
		return printJSON(s.out, all)
	}
	if _, err := fmt.Fprintf(s.out, "%s to %s\n", printable(before.Release), printable(after.Release)); err != nil {
		return err
	}
	for _, kind := range []string{measured.SNP, measured.TDX, measured.TPM} {
		d, ok := all[kind]
		if !ok {
			continue
		}
		if _, err := fmt.Fprintf(s.out, "\n[%s]\n", kind); err != nil {
			return err
		}
		if err := printDifference(s.out, d); err != nil {
			return err
		}
	}
	return nil
}

// orEmpty stands for a kind that a release does not have.
func orEmpty(r measured.Result, kind string) measured.Result {
	r.Kind = kind
	return r
}
