// SPDX-License-Identifier: Apache-2.0

//go:build !sample

package attest

import "errors"

func newSample(Config) (Attester, error) {
	return nil, errors.New("TEE \"sample\" proves nothing and is not part of this build (build tag sample)")
}

func newSampleDevice(Config) (Attester, error) {
	return nil, errors.New("device \"sampledevice\" proves nothing and is not part of this build (build tag sample)")
}
