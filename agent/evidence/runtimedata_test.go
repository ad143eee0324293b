// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gowebpki/jcs"
)

// nonceVector is base64 of the bytes 0 to 31.
const nonceVector = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// rfc7517Key is the P-256 key of RFC 7517 appendix A.1 with the algorithm of the
// KBS protocol.
const rfc7517Key = `{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC",` +
	`"x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`

func mustJWK(t testing.TB, text string) JWK {
	t.Helper()
	key, err := ParseJWK([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustRuntimeData(t testing.TB, nonce string, key JWK, additional string) RuntimeData {
	t.Helper()
	d, err := NewRuntimeData(nonce, key, additional)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestReportDataOfTheHandshakeVector(t *testing.T) {
	d := mustRuntimeData(t, nonceVector, mustJWK(t, rfc7517Key), "")
	wantText := `{"additional-evidence":"","nonce":"` + nonceVector + `","tee-pubkey":` + rfc7517Key + `}`
	if got := string(d.Bound()); got != wantText {
		t.Errorf("canonical text\n got %s\nwant %s", got, wantText)
	}
	r, err := d.ReportData(SHA384)
	if err != nil {
		t.Fatal(err)
	}
	const want = "8a6244441b1b1171b3a1d56a693d4ce116c1f9ca1ae558bc5f59d46dada54cf49e92a361ab2472c434652fed5887f16d"
	if got := hex.EncodeToString(r.Digest()); got != want {
		t.Errorf("digest\n got %s\nwant %s", got, want)
	}
	padded := r.Bytes64()
	if !bytes.Equal(padded[:48], r.Digest()) || !bytes.Equal(padded[48:], make([]byte, 16)) {
		t.Errorf("padded form is not digest and zeros: %x", padded)
	}
	sample, err := SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const wantSample = `{"svn":"1","report_data":"imJERBsbEXGzodVqaT1M4RbB+coa5Vi8X1nUba2lTPSekqNhqyRyxDRlL+1Yh/Ft"}`
	if string(sample) != wantSample {
		t.Errorf("sample evidence\n got %s\nwant %s", sample, wantSample)
	}
}

// The published vectors over a key that is not on its curve: only the hashing can be
// checked with it, so the canonical text is put together here.
func TestDigestsOfTheOffCurveVectors(t *testing.T) {
	x := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	y := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	key := `{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`
	if _, err := ParseJWK([]byte(key)); err == nil || !strings.Contains(err.Error(), "not on P-256") {
		t.Errorf("off-curve key: got error %v, want one naming the curve", err)
	}
	tail := `"nonce":"` + nonceVector + `","tee-pubkey":` + key + `}`
	device, err := appendText(nil, `{"sampledevice":{"report_data":"AA==","svn":"2"}}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"device", `{` + tail, "58581835c863bd144de1ebcf79a02430d4e0d318f470671e931a058456d1a85bfa518f2c41eca853c2bf6756e210e65d"},
		{"no devices", `{"additional-evidence":"",` + tail, "04245bfd0073d02eba7d9456c905208a224b0b56f0955eebf028be79c9b4bf67efc9641654d06be696bd386ef2e37f32"},
		{"sample device", `{"additional-evidence":` + string(device) + `,` + tail, "17594de3d1e46df51533f7e60da232263be87036a204af9639ad232465cd8bc4a744bee5a850d69f0c7ce379bb521272"},
	} {
		r, err := bind(SHA384, []byte(tc.text))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(r.Digest()); got != tc.want {
			t.Errorf("%s: digest got %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestRuntimeDataIsCanonicalForTwoOtherImplementations(t *testing.T) {
	key := mustJWK(t, rfc7517Key)
	for _, text := range []string{
		"plain", "a/b+c==", `quote " backslash \`, "<script>&amp;", "line\u2028sep\u2029end",
		"tab\tnl\nbell\u0007nul\u0000", "é 日本 𝄞", "\u007f\u0080",
	} {
		d := mustRuntimeData(t, text, key, text)
		for name, canonical := range map[string][]byte{"bound": d.Bound(), "wire": d.Wire()} {
			other, err := jcs.Transform(canonical)
			if err != nil {
				t.Fatalf("%s of %q: %v", name, text, err)
			}
			if !bytes.Equal(other, canonical) {
				t.Errorf("%s of %q\n got %s\nwant %s", name, text, canonical, other)
			}
			v := jsontext.Value(bytes.Clone(canonical))
			if err := v.Canonicalize(); err != nil || !bytes.Equal(v, canonical) {
				t.Errorf("%s of %q\n got %s\nwant %s (%v)", name, text, canonical, v, err)
			}
			var back map[string]any
			if err := json.Unmarshal(canonical, &back); err != nil || back["nonce"] != text {
				t.Errorf("%s of %q decodes to nonce %q (%v)", name, text, back["nonce"], err)
			}
		}
	}
}

func TestRuntimeDataRefuses(t *testing.T) {
	key := mustJWK(t, rfc7517Key)
	for _, tc := range []struct {
		name, nonce, additional string
		key                     JWK
		want                    string
	}{
		{"empty nonce", "", "", key, "empty nonce"},
		{"over-long nonce", strings.Repeat("n", MaxNonceSize+1), "", key, "1025 bytes"},
		{"no key", "n", "", JWK{}, "no TEE key"},
		{"nonce not UTF-8", "\xff", "", key, "not valid UTF-8"},
		{"additional evidence not UTF-8", "n", "\xc3", key, "not valid UTF-8"},
		{"huge additional evidence", "n", strings.Repeat("a", MaxAdditionalEvidenceSize+1), key, "additional evidence is"},
	} {
		if _, err := NewRuntimeData(tc.nonce, tc.key, tc.additional); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
	}
	if _, err := (RuntimeData{}).ReportData(SHA384); err == nil {
		t.Error("zero runtime data made report data")
	}
	if _, err := mustRuntimeData(t, "n", key, "").ReportData("sm3"); err == nil {
		t.Error("sm3 made report data")
	}
}

func TestReportDataSizesByHash(t *testing.T) {
	d := mustRuntimeData(t, "n", mustJWK(t, rfc7517Key), "")
	for _, h := range SupportedHashes() {
		r, err := d.ReportData(h)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Digest()) != h.Size() || r.IsZero() {
			t.Errorf("%s: digest is %d bytes, want %d", h, len(r.Digest()), h.Size())
		}
	}
	device, err := d.DeviceReportData(SHA384)
	if err != nil {
		t.Fatal(err)
	}
	primary, err := d.ReportData(SHA384)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(device.Digest(), primary.Digest()) {
		t.Error("devices and the primary TEE are bound to the same digest")
	}
}

func TestWorkloadEvidenceCannotPassAsAHandshake(t *testing.T) {
	d := mustRuntimeData(t, "n", mustJWK(t, rfc7517Key), "")
	handshake, err := d.ReportData(SHA384)
	if err != nil {
		t.Fatal(err)
	}
	inputs := [][]byte{nil, {}, []byte("data"), d.Bound(), handshake.Digest(), make([]byte, 64), bytes.Repeat([]byte{0xff}, 4096)}
	for _, data := range inputs {
		r := WorkloadReportData(data)
		b := r.Bytes64()
		if bytes.Equal(b[:48], handshake.Digest()) {
			t.Errorf("workload data %q has the digest of a handshake", data)
		}
		if bytes.IndexByte(b[48:], 0) >= 0 {
			t.Errorf("workload tag has a zero byte: %x", b[48:])
		}
		if !bytes.Equal(r.Digest(), b[:]) {
			t.Errorf("unpadded form lost the tag: %x", r.Digest())
		}
	}
	// SHA-384 over the domain and "data", computed apart.
	want := WorkloadReportData([]byte("data")).Digest()[:48]
	if got := mustSum(t, SHA384, []byte("casemate workload evidence v1\x00data")); !bytes.Equal(got, want) {
		t.Errorf("digest got %x, want %x", want, got)
	}
	if !(ReportData{}).IsZero() || len((ReportData{}).Digest()) != 0 {
		t.Error("the zero report data is bound to something")
	}
}

func mustSum(t testing.TB, h HashAlgorithm, data []byte) []byte {
	t.Helper()
	sum, err := h.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
