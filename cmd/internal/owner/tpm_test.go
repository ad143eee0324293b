// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

const withTPM = `
id = "web"
tees = ["tpm"]
initdata = ["sha256:1111111111111111111111111111111111111111111111111111111111111111"]

[tpm]
attestation_keys = ["sha256:3333333333333333333333333333333333333333333333333333333333333333"]

[tpm.pcrs]
0  = ["4444444444444444444444444444444444444444444444444444444444444444"]
4  = ["5555555555555555555555555555555555555555555555555555555555555555", "6666666666666666666666666666666666666666666666666666666666666666"]
11 = ["7777777777777777777777777777777777777777777777777777777777777777"]
12 = ["0000000000000000000000000000000000000000000000000000000000000000"]
`

func TestTPMRegistration(t *testing.T) {
	r, err := ParseTOML([]byte(withTPM))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.TPM.Register(4); len(got) != 2 || r.TPM.Register(5) != nil {
		t.Errorf("register 4 has %v, register 5 %v", got, r.TPM.Register(5))
	}
	body, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParseJSON(body); err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("through JSON: %+v, %v", again, err)
	}
}

const withDevice = `
id = "web"
tees = ["snp"]
devices = ["tpm"]
initdata = ["sha384:111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"]

[snp]
measurements = ["222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222"]

[tpm]
attestation_keys = ["sha256:3333333333333333333333333333333333333333333333333333333333333333"]
`

func TestDeviceRegistration(t *testing.T) {
	r, err := ParseTOML([]byte(withDevice))
	if err != nil {
		t.Fatal(err)
	}
	body, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseJSON(body)
	if err != nil || !again.HasDevice("tpm") || len(again.TPM.KeyDigests()) != 1 {
		t.Errorf("through JSON: %+v, %v", again, err)
	}
	keys := `attestation_keys = ["sha256:` + strings.Repeat("3", 64) + `"]`
	for _, tt := range []struct{ name, old, new, want string }{
		{"a TPM that nobody vouches for", keys, "", "only a policy of the workload's own"},
		{"the same with a register", "[tpm]\n" + keys, "[tpm]\n[tpm.pcrs]\n4 = ['" + strings.Repeat("5", 64) + "']", "only a policy"},
		{"no values for it", "\n[tpm]\n" + keys, "", "no tpm reference values"},
		{"values without the device", `devices = ["tpm"]`, "", `lacks "tpm"`},
		{"a device that nobody verifies", `["tpm"]`, `["tpm", "nvidia"]`, `unknown device "nvidia"`},
		{"a TEE as device", `["tpm"]`, `["tpm", "snp"]`, `unknown device "snp"`},
		{"a debug image's registers", "[tpm]", "[tpm]\ndebug = true", "want debug = true"},
		{"a device twice", `["tpm"]`, `["tpm", "tpm"]`, "listed twice"},
		{"a TPM beside Azure's", `["snp"]`, `["snp", "az-snp-vtpm"]`, "devices beside tee"},
		{"a TPM beside itself", `["snp"]`, `["snp", "tpm"]`, "devices beside tee"},
		{"a sample device under the built-in policy", `["tpm"]`, `["tpm", "sampledevice"]`, "proves nothing"},
		{"a key in another form", "sha256:33", "33", "want sha256:HEX"},
		{"a register that does not exist", keys, keys + "\n[tpm.pcrs]\n24 = ['" + strings.Repeat("5", 64) + "']", "from 0 to 23"},
		{"a policy of its own", "initdata =", "policy = 'package policy'\ninitdata =", ""},
	} {
		text := strings.Replace(withDevice, tt.old, tt.new, 1)
		if text == withDevice {
			t.Fatalf("%s: nothing changed", tt.name)
		}
		_, err := ParseTOML([]byte(text))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestTPMRegistrationRefuses(t *testing.T) {
	const zero, value = "0000000000000000000000000000000000000000000000000000000000000000", `["7777777777777777777777777777777777777777777777777777777777777777"]`
	for _, tt := range []struct{ name, old, new, want string }{
		{"no key pinned", `["sha256:` + strings.Repeat("3", 64) + `"]`, "[]", "no tpm attestation_keys"},
		{"key by its bare digest", "sha256:33", "33", "want sha256:HEX or a public key"},
		{"key of zeros", strings.Repeat("3", 64), zero, "all zero"},
		{"firmware unpinned", "\n0  =", "\n1  =", "no tpm pcrs.0"},
		{"boot program unpinned", "\n4  =", "\n5  =", "no tpm pcrs.4"},
		{"initdata's register", "\n12 =", "\n8 =", "compared with the initdata"},
		{"resettable register", "\n12 =", "\n16 =", "can reset"},
		{"application register", "\n12 =", "\n23 =", "can reset"},
		{"no such register", "\n12 =", "\n24 =", "from 0 to 23"},
		{"one register in two spellings", "\n12 =", "\n04 =", "from 0 to 23"},
		{"register with no value", `["` + zero + `"]`, "[]", "0 values"},
		{"nothing measured into register 0", strings.Repeat("4", 64), zero, "nothing was measured"},
		{"value in upper case", strings.Repeat("5", 64), strings.Repeat("AA", 32), "lower-case"},
		{"sha384 initdata", "sha256:" + strings.Repeat("1", 64), "sha384:" + strings.Repeat("1", 96), "takes sha256 only"},
		{"values without the TEE", `["tpm"]`, `["sample"]` + "\npolicy = 'p'", `lacks "tpm"`},
		{"the TEE without values", "[tpm.pcrs]", "[tpm.other]", "unknown key"},
		{"a second table", "12 = ", "13 = " + value + "\n12 = ", ""},
	} {
		text := strings.Replace(withTPM, tt.old, tt.new, 1)
		if text == withTPM {
			t.Fatalf("%s: nothing changed", tt.name)
		}
		_, err := ParseTOML([]byte(text))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestTPMKeysInPEM(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	want := fmt.Sprintf("sha256:%x", sha256.Sum256(der))
	if got := (&TPMReference{AttestationKeys: []string{text}}).KeyDigests(); len(got) != 1 || got[0] != want {
		t.Errorf("got %v, want %s", got, want)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for name, text := range map[string]string{"a private key": string(private), "two keys": text + text, "cut": text[:200]} {
		if _, err := keyDigest(text); err == nil || strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The example in the how-to is one that is accepted.
func TestTPMHowTo(t *testing.T) {
	text, err := os.ReadFile("../../../docs/how-to/tpm.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(text), "   id       =")
	example, _, end := strings.Cut(example, "```")
	if !ok || !end {
		t.Fatal("no example in the how-to")
	}
	if _, err := ParseTOML([]byte("id = " + example)); err != nil {
		t.Error(err)
	}
}
