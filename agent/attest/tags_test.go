// SPDX-License-Identifier: Apache-2.0

//go:build !sample && !testsnp

package attest

import (
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

// A release build has no attester that proves nothing, however it is asked for.
func TestReleaseBuildsRefuseTestAttesters(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{TEE: evidence.Sample}, "build tag sample"},
		{Config{TestSignerDir: t.TempDir()}, "build tag testsnp"},
		{Config{TestSignerDir: t.TempDir(), TEE: evidence.Sample}, "test signer is for snp"},
	} {
		if a, err := Detect(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, %v, want error %q", tc.cfg, a, err, tc.want)
		}
	}
	if d, err := Devices(Config{}, []evidence.TEE{evidence.SampleDevice}); err == nil || !strings.Contains(err.Error(), "build tag sample") {
		t.Errorf("got %v, %v for a sample device", d, err)
	}
}
