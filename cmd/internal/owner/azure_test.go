// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"reflect"
	"strings"
	"testing"
)

const onAzure = `
id = "web"
tees = ["az-snp-vtpm"]
initdata = ["sha256:1111111111111111111111111111111111111111111111111111111111111111"]

[snp]
measurements = ["222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222"]

[azure.pcrs]
4  = ["5555555555555555555555555555555555555555555555555555555555555555"]
11 = ["7777777777777777777777777777777777777777777777777777777777777777"]
`

func TestAzureRegistration(t *testing.T) {
	r, err := ParseTOML([]byte(onAzure))
	if err != nil {
		t.Fatal(err)
	}
	body, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParseJSON(body); err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("through JSON: %+v, %v", again, err)
	}
	if len(r.Measurements("az-snp-vtpm")) != 1 || r.Measurements("az-tdx-vtpm") != nil {
		t.Errorf("measurements %v", r.Measurements("az-snp-vtpm"))
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"the hardware unpinned", "[snp]\nmeasurements", "[other]\nmeasurements", "unknown key"},
		{"the other hardware's values", `["az-snp-vtpm"]`, `["az-tdx-vtpm"]`, "tees lacks"},
		{"no registers", "[azure.pcrs]\n4  =", "[azure.pcrs]\n5  =", "no azure pcrs.4"},
		{"an initrd unpinned", "\n11 =", "\n12 =", "agent is unproved"},
		{"registers without the TEE", `["az-snp-vtpm"]`, `["snp"]`, "has azure reference values"},
		{"initdata's register", "\n11 =", "\n8 =", "azure pcrs.8"},
		{"nothing started", strings.Repeat("5", 64), strings.Repeat("0", 64), "nothing was measured"},
		{"sha384 initdata", "sha256:" + strings.Repeat("1", 64), "sha384:" + strings.Repeat("1", 96), "takes sha256 only"},
	} {
		text := strings.Replace(onAzure, tt.old, tt.new, 1)
		if text == onAzure {
			t.Fatalf("%s: nothing changed", tt.name)
		}
		if _, err := ParseTOML([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
