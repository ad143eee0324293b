// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/measured"
)

// maxArtifact bounds a kernel, initrd or UKI: an initrd may hold a whole root.
const maxArtifact = 1 << 30

func newMeasure(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "measure COMMAND", Short: "Compute what a guest will report from what it is launched with", Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			return usagef("want snp, krun, tpm, tdx, rvps, verify, bundle or diff, got %q", args)
		},
	}
	c.AddCommand(newMeasureSNP(s), newMeasureKrun(s), newMeasureTPM(s), newMeasureTDX(s), newMeasureBundle(s), newMeasureRVPS(s), newMeasureVerify(s), newMeasureDiff(s))
	return c
}

// measureOutput is the form of a result that was asked for.
type measureOutput struct {
	streams
	asJSON, asTOML, asRVPS bool

	// key signs the message for RVPS into the file signature.
	key, passphrase, signature string
}

// flags adds the forms of output.
func (o *measureOutput) flags(c *cobra.Command) {
	c.Flags().BoolVar(&o.asJSON, "json", false, "print JSON, as measure diff takes it")
	c.Flags().BoolVar(&o.asRVPS, "rvps", false, "print the message that registers the values at Trustee's RVPS, where they replace those of the same name")
	c.Flags().StringVar(&o.key, "key", "", "with --rvps: PEM `FILE` with the private key, PKCS #8 or cosign's, that signs the message")
	c.Flags().StringVar(&o.passphrase, "passphrase-file", "", "`FILE` with the passphrase of a key of cosign's, instead of $"+passphraseVariable)
	c.Flags().StringVar(&o.signature, "signature", "", "new `FILE` for the signature over the message's bytes: ECDSA with SHA-256, in base64")
	c.Flags().BoolVar(&o.asTOML, "toml", false, "print the part of a registration that lists the values")
}

// print writes r as text or JSON; with --toml it writes part.
func (o *measureOutput) print(r measured.Result, part string) error {
	if o.asJSON && o.asTOML || o.asJSON && o.asRVPS || o.asTOML && o.asRVPS {
		return usagef("want one form of output")
	}
	if (o.key == "") != (o.signature == "") || o.key != "" && !o.asRVPS {
		return usagef("--key and --signature go together, and with --rvps")
	}
	switch {
	case o.asRVPS:
		return o.printRVPS(r)
	case o.asTOML:
		_, err := fmt.Fprint(o.out, part)
		return err
	case o.asJSON:
		text, err := r.JSON()
		if err == nil {
			_, err = o.out.Write(text)
		}
		return err
	}
	if r.Debug() {
		if _, err := fmt.Fprintln(o.out, "DEBUG GUEST: the host has a shell in it; keybroker refuses it unless the registration says debug = true"); err != nil {
			return err
		}
	}
	width := 0
	for _, v := range r.Values {
		width = max(width, len(v.Name))
	}
	for _, v := range r.Values {
		if _, err := fmt.Fprintf(o.out, "%-*s  %s\n", width, v.Name, v.Hex); err != nil {
			return err
		}
	}
	return nil
}

// debugLine marks the values of a debug guest in a registration.
func debugLine(r measured.Result) string {
	if !r.Debug() {
		return ""
	}
	return "# Of a debug guest: the registration must say debug = true above all tables.\ndebug = true\n"
}

// tomlList is a list of a registration with a line for each value, the same value
// once.
func tomlList(key string, values []measured.Value) string {
	var b strings.Builder
	b.WriteString(key + " = [\n")
	seen := make(map[string]bool)
	for _, v := range values {
		if !seen[v.Hex] {
			fmt.Fprintf(&b, "\t%q, # %s\n", v.Hex, v.Name)
		}
		seen[v.Hex] = true
	}
	b.WriteString("]\n")
	return b.String()
}

// readArtifact reads one file of at most limit bytes and describes it.
func readArtifact(role, name string, limit int64) ([]byte, measured.Input, error) {
	content, err := readFile(name, limit)
	if err != nil {
		return nil, measured.Input{}, fmt.Errorf("reading %s: %w", role, err)
	}
	return content, measured.File(role, content), nil
}
