// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/casemate-build/internal/cosign"
	"github.com/casemate/casemate/keyprovider"
)

func newSeal(s streams) *cobra.Command {
	var keyFile, keyID, jwkOut string
	c := &cobra.Command{
		Use:   "seal kbs:///REPOSITORY/TYPE/TAG --key FILE --key-id kbs:///REPOSITORY/TYPE/TAG [--jwk-out FILE]",
		Short: "Write a sealed secret, which stands for a secret of the relying party",
		Long: `Write the text that stands for a secret of the relying party and that only a guest
turns into it. The text names the secret and is signed (ES256) by the key of keygen,
so that whoever delivers it cannot name another one. Guests look up the public half
under --key-id: --jwk-out writes it, for "keybroker resource set".`,
		Args: exactly("kbs:///REPOSITORY/TYPE/TAG"),
		RunE: func(_ *cobra.Command, args []string) error {
			if keyFile == "" || keyID == "" {
				return usagef("--key and --key-id are needed")
			}
			pem, err := readFile(keyFile, cosign.MaxKeyBytes)
			defer clear(pem)
			if err != nil {
				return fmt.Errorf("reading signing key: %w", err)
			}
			key, err := cosign.ParsePrivateKey(pem, nil)
			if err != nil {
				return err
			}
			text, err := keyprovider.SealVault(key, keyID, args[0])
			if err != nil {
				return err
			}
			if jwkOut != "" {
				jwk, err := keyprovider.VerificationKey(&key.PublicKey)
				if err != nil {
					return err
				}
				if err := writeNewFile(jwkOut, jwk, publicFileMode); err != nil {
					return fmt.Errorf("writing verification key: %w", err)
				}
			}
			_, err = fmt.Fprintf(s.out, "%s\n", text)
			return err
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "`FILE` with the private key that keygen made")
	c.Flags().StringVar(&keyID, "key-id", "", "`URI` under which the relying party keeps the public half")
	c.Flags().StringVar(&jwkOut, "jwk-out", "", "new `FILE` to write the public half to as a JWK")
	return c
}
