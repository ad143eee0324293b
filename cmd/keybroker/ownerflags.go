// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/owner"
)

// ownerFlags say how to reach a running keybroker as its owner.
type ownerFlags struct {
	keybroker string
	tokenFile string
	caFile    string
	plainHTTP bool
	json      bool
}

func (f *ownerFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.keybroker, "keybroker", "https://127.0.0.1:8080", "address of the keybroker")
	flags.StringVar(&f.tokenFile, "owner-token-file", "", "file with the owner token, owner-token in the keybroker's state directory (required)")
	flags.StringVar(&f.caFile, "ca", "", "PEM certificates to trust for the keybroker, tls.crt in its state directory when self-signed (default the system's)")
	flags.BoolVar(&f.plainHTTP, "insecure-http", false, "permit an http address: the token and secrets can be read on the way")
	flags.BoolVar(&f.json, "json", false, "print the result for programs")
}

func (f *ownerFlags) client() (*owner.Client, error) {
	if f.tokenFile == "" {
		return nil, usagef("--owner-token-file is required")
	}
	token, err := owner.ReadToken(f.tokenFile)
	if err != nil {
		return nil, err
	}
	defer clear(token)
	config := owner.Config{URL: f.keybroker, AllowPlainHTTP: f.plainHTTP, Token: token}
	if f.caFile != "" {
		if config.Roots, err = owner.ReadRoots(f.caFile); err != nil {
			return nil, err
		}
	}
	return owner.New(config)
}
