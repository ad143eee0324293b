// SPDX-License-Identifier: Apache-2.0

//go:build !testsnp

package attest

import "errors"

func newTestSNP(Config) (Attester, error) {
	return nil, errors.New("the SNP test signer is not part of this build (build tag testsnp)")
}
