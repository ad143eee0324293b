// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

// maxRootsBytes holds some hundred certificates.
const maxRootsBytes = 1 << 20

// registryFlags say how registries are reached.
type registryFlags struct {
	insecure []string
	rootsCA  string
}

func (f *registryFlags) bind(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.insecure, "insecure-registry", nil, "registry `HOST[:PORT]` that may be reached over plain HTTP; repeatable")
	c.Flags().StringVar(&f.rootsCA, "registry-ca", "", "PEM `FILE` of certificates to trust for registries, besides the system's")
}

func (f *registryFlags) client() (*image.Client, error) {
	config := image.Config{Insecure: f.insecure}
	if f.rootsCA == "" {
		return image.New(config), nil
	}
	text, err := readFile(f.rootsCA, maxRootsBytes)
	if err != nil {
		return nil, fmt.Errorf("reading registry certificates: %w", err)
	}
	if config.Roots, err = x509.SystemCertPool(); err != nil {
		return nil, fmt.Errorf("reading the system's certificates: %w", err)
	}
	if !config.Roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading registry certificates: no PEM certificate in %s", f.rootsCA)
	}
	return image.New(config), nil
}
