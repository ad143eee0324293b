// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/casemate-build/internal/cosign"
)

const publicFileMode = 0o644

type keyFiles struct {
	Private string `json:"private"`
	Public  string `json:"public"`
}

func newKeygen(s streams) *cobra.Command {
	var prefix string
	var asJSON bool
	c := &cobra.Command{
		Use:   "keygen --out PREFIX",
		Short: "Make a key pair for sign",
		Long: `Make a key pair for sign: an ECDSA P-256 private key in PREFIX.key (PKCS #8, not
password-protected, mode 0600) and its public key in PREFIX.pub, which goes into
image policies. Existing files are not overwritten.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			if prefix == "" {
				return usagef("--out is missing")
			}
			files := keyFiles{Private: prefix + ".key", Public: prefix + ".pub"}
			if err := writeKeyPair(files); err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, files)
			}
			_, err := fmt.Fprintf(s.out, "private key  %s\npublic key   %s\n", files.Private, files.Public)
			return err
		},
	}
	c.Flags().StringVar(&prefix, "out", "", "`PREFIX` of the two file names")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func writeKeyPair(files keyFiles) error {
	private, public, err := cosign.GenerateKey()
	defer clear(private)
	if err != nil {
		return err
	}
	if err := writeNewFile(files.Private, private, secretFileMode); err != nil {
		return fmt.Errorf("writing private key: %w", err)
	}
	if err := writeNewFile(files.Public, public, publicFileMode); err != nil {
		return errors.Join(fmt.Errorf("writing public key: %w", err), os.Remove(files.Private))
	}
	return nil
}
