// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/cmd/internal/measured"
)

var (
	valueA, valueB, valueC = strings.Repeat("aa", 48), strings.Repeat("bb", 48), strings.Repeat("cc", 48)
	pcr4, pcr8             = strings.Repeat("44", 32), strings.Repeat("88", 32)
	booted                 = []string{"firmware", "kernel"}
)

// releaseFiles writes a signed bundle and its key.
func releaseFiles(t *testing.T, change func(*measured.Bundle)) beside {
	t.Helper()
	b := measured.Bundle{Release: "1.0", Results: []measured.Result{
		{Kind: measured.SNP, Inputs: []measured.Input{measured.File("firmware", nil), measured.File("kernel", nil)}, Values: []measured.Value{
			{Name: "measurement vcpus=1", Hex: valueA, From: booted}, {Name: "measurement vcpus=2", Hex: valueB, From: booted}, {Name: "measurement again", Hex: valueA, From: booted},
		}},
		{Kind: measured.TDX, Values: []measured.Value{{Name: "MRTD", Hex: valueA}, {Name: "RTMR1", Hex: valueB}, {Name: "RTMR2", Hex: valueC}}},
		{Kind: measured.TPM, Values: []measured.Value{{Name: "PCR 4 sha256", Hex: pcr4}, {Name: "PCR 4 sha384", Hex: valueA}, {Name: "PCR 8 sha256", Hex: pcr8}}},
	}}
	if change != nil {
		change(&b)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := b.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	with := beside{values: filepath.Join(t.TempDir(), "bundle.json"), valuesKey: filepath.Join(t.TempDir(), "key.pub")}
	for name, text := range map[string][]byte{with.values: text, with.valuesKey: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return with
}

func registrationFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "r.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

var bareRegistration = "id = 'web'\ninitdata = ['sha256:" + strings.Repeat("11", 32) + "']\n"

func TestValuesOfARelease(t *testing.T) {
	r, err := readRegistration(registrationFile(t, bareRegistration+"tees = ['snp', 'tdx', 'tpm']\n[snp]\naccept_missing_crl = true\n"+
		"[tpm]\nattestation_keys = ['sha256:"+strings.Repeat("22", 32)+"']\n[tpm.pcrs]\n9 = ['"+strings.Repeat("44", 32)+"']\n11 = ['"+strings.Repeat("44", 32)+"']\n0 = ['"+strings.Repeat("33", 32)+"']\n"), releaseFiles(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.SNP.Measurements, " "); got != valueA+" "+valueB || !r.SNP.AcceptMissingCRL {
		t.Errorf("snp: %+v", r.SNP)
	}
	if strings.Join(r.TDX.Measurements, "")+strings.Join(r.TDX.RTMR1, "")+strings.Join(r.TDX.RTMR2, "") != valueA+valueB+valueC || r.TDX.RTMR0 != nil {
		t.Errorf("tdx: %+v", r.TDX)
	}
	if len(r.TPM.PCRs) != 4 || r.TPM.PCRs["4"][0] != pcr4 {
		t.Errorf("tpm: %+v", r.TPM)
	}
}

func TestValuesRefused(t *testing.T) {
	const snp = "tees = ['snp']\n"
	debug := func(b *measured.Bundle) { b.Results[0].MarkDebug() }
	for _, tt := range []struct {
		name, text, want string
		change           func(*measured.Bundle)
	}{
		{"values of its own", snp + "[snp]\nmeasurements = ['" + valueC + "']\n", "has values for measurement", nil},
		{"a register of its own", "tees = ['tpm']\n[tpm.pcrs]\n4 = ['" + pcr8 + "']\n", "has values for PCR 4", nil},
		{"a TEE that the release is not for", snp, "no reference values for snp", func(b *measured.Bundle) { b.Results = b.Results[1:] }},
		{"a debug release", snp, "want debug = true", debug},
		{"firmware that boots any kernel", snp, "firmware_only", func(b *measured.Bundle) { b.Results[0].Values[1].From = booted[:1] }},
		{"a result without the value", snp, "no snp measurement", func(b *measured.Bundle) { b.Results[0].Values = []measured.Value{{Name: "other", Hex: valueA}} }},
	} {
		if r, err := readRegistration(registrationFile(t, bareRegistration+tt.text), releaseFiles(t, tt.change)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v, %v, want %q", tt.name, r, err, tt.want)
		}
	}
	if _, err := readRegistration(registrationFile(t, bareRegistration+"debug = true\n"+snp), releaseFiles(t, debug)); err != nil {
		t.Errorf("a debug release for a workload that says debug: %v", err)
	}
	with := releaseFiles(t, nil)
	with.valuesKey = releaseFiles(t, nil).valuesKey
	if _, err := readRegistration(registrationFile(t, bareRegistration+snp), with); err == nil || !strings.Contains(err.Error(), "no signature") {
		t.Errorf("another's key: %v", err)
	}
}
