// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// verifierFlags say what evidence is held against besides a registration.
type verifierFlags struct {
	snpRoot    string
	tdxRoot    string
	collateral string
	kds        string
}

func (f *verifierFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.tdxRoot, "tdx-root", "", "PEM file with a TDX root to trust for tests, by workloads registered with test_roots")
	flags.StringVar(&f.snpRoot, "snp-root", "", "PEM file with an SNP root to trust for tests, by workloads registered with test_roots")
	flags.StringVar(&f.collateral, "snp-collateral", "", "directory with vcek/HWID/*vcek.der and crl/*.crl")
	flags.StringVar(&f.kds, "amd-kds", "", "ask AMD for VCEKs, revocation lists and the intermediates of VLEKs at this address, such as "+verifier.AMDKDS+", and keep them in the collateral directory (default collateral in the state directory)")
}

// testRoots reports whether a root is trusted that proves nothing about hardware.
func (f *verifierFlags) testRoots() bool { return f.snpRoot != "" || f.tdxRoot != "" }

// open makes the verifier. What AMD sends is kept in the state directory where no other is named.
func (f *verifierFlags) open(state string) (*verifier.Verifier, error) {
	c := verifier.Config{Collateral: f.collateral, KDS: f.kds}
	if c.KDS != "" && c.Collateral == "" {
		c.Collateral = filepath.Join(state, "collateral")
		if err := os.MkdirAll(c.Collateral, 0o700); err != nil {
			return nil, fmt.Errorf("making the collateral directory: %w", err)
		}
	}
	if f.snpRoot != "" {
		var err error
		if c.SNPTestRoots, err = readFile(f.snpRoot, verifier.MaxTestRoots); err != nil {
			return nil, fmt.Errorf("reading SNP test root: %w", err)
		}
	}
	if f.tdxRoot != "" {
		var err error
		if c.TDXTestRoot, err = readFile(f.tdxRoot, verifier.MaxTestRoots); err != nil {
			return nil, fmt.Errorf("reading TDX test root: %w", err)
		}
	}
	return verifier.New(c)
}
