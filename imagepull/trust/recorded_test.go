// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/go-json-experiment/json"
)

// recordedDir holds what cosign, Fulcio and Rekor made; its README says where it is from.
const recordedDir = "testdata/recorded"

// recorded reads a signature in the form of containers' dir transport.
func recorded(t *testing.T, name string) Signature {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(recordedDir, name))
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Payload     []byte            `json:"payload"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	return Signature{
		Payload: s.Payload, Base64Signature: s.Annotations["dev.cosignproject.cosign/signature"],
		Certificate: s.Annotations["dev.sigstore.cosign/certificate"], Chain: s.Annotations["dev.sigstore.cosign/chain"],
		RekorBundle: s.Annotations["dev.sigstore.cosign/bundle"],
	}
}

// recordedBase64 is a recorded key or certificate as policy.json holds it.
func recordedBase64(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(recordedDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// TestRecordedSignatures judges signatures of cosign, with certificates of the public
// Fulcio and entries of the public Rekor, and each of their parts changed.
func TestRecordedSignatures(t *testing.T) {
	const single, logged = "634a8f35b5f16dcf4aaa0822adc0b1964bb786fca12f6831de8ddc45e5986a00", "0489474da8ea22426ece86ace6c1c0026ab2fd3cdfbbd62b7e94650266c37d9a"
	rekor := fmt.Sprintf(`,'rekorPublicKeyData':'%s'`, recordedBase64(t, "rekor.pub"))
	byKey := func(name string) string { return fmt.Sprintf(`'keyData':'%s'`, recordedBase64(t, name)) }
	keyless := func(issuer, email string) string {
		return fmt.Sprintf(`'fulcio':{'caData':'%s','oidcIssuer':'%s','subjectEmail':'%s'}`, recordedBase64(t, "fulcio.pem"), issuer, email)
	}
	const issuer, email = "https://github.com/login/oauth", "mitr@redhat.com"
	for _, tt := range []struct {
		name, file, repository, digest string
		requirement                    string
		change                         func(*Signature)
		want                           string
	}{
		{"key", "key.json", "cosign-signed-single-sample", single, byKey("key.pub"), nil, ""},
		{"key, another", "key.json", "cosign-signed-single-sample", single, byKey("key-rekor.pub"), nil, "signature"},
		{"key, another image", "key.json", "cosign-signed-single-sample", logged, byKey("key.pub"), nil, "digest"},
		{"key, another name", "key.json", "cosign-signed/key-1", single, byKey("key.pub"), nil, "cosign-signed-single-sample"},
		{"key and log", "key-rekor.json", "cosign-signed/key-1", logged, byKey("key-rekor.pub") + rekor, nil, ""},
		{"key and log, not logged", "key.json", "cosign-signed-single-sample", single, byKey("key.pub") + rekor, nil, "log"},
		{"key and log, entry of another signature", "key-rekor.json", "cosign-signed/key-1", logged, byKey("key-rekor.pub") + rekor,
			func(s *Signature) { s.RekorBundle = recorded(t, "fulcio-rekor.json").RekorBundle }, "another"},
		{"keyless", "fulcio-rekor.json", "cosign-signed/fulcio-rekor-1", logged, keyless(issuer, email) + rekor, nil, ""},
		{"keyless, another identity", "fulcio-rekor.json", "cosign-signed/fulcio-rekor-1", logged, keyless(issuer, "x@example.com") + rekor, nil, email},
		{"keyless, another issuer", "fulcio-rekor.json", "cosign-signed/fulcio-rekor-1", logged, keyless("https://accounts.google.com", email) + rekor, nil, issuer},
		{"keyless, without its chain", "fulcio-rekor.json", "cosign-signed/fulcio-rekor-1", logged, keyless(issuer, email) + rekor,
			func(s *Signature) { s.Chain = "" }, "unknown authority"},
		{"keyless, later by a second", "fulcio-rekor.json", "cosign-signed/fulcio-rekor-1", logged, keyless(issuer, email) + rekor,
			func(s *Signature) { s.RekorBundle = laterEntry(t, s.RekorBundle) }, "not signed by its log"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			digest := v1.Hash{Algorithm: "sha256", Hex: tt.digest}
			s := recorded(t, tt.file)
			if tt.change != nil {
				tt.change(&s)
			}
			p := policy(t, `{'default':[{'type':'sigstoreSigned',`+tt.requirement+`,'signedIdentity':{'type':'matchRepository'}}]}`)
			wantVerdict(t, p.Check(context.Background(), subject(t, "192.168.64.2:5000/"+tt.repository, digest), holding(digest, s)), tt.want)
		})
	}
}

// laterEntry moves a log entry by one second.
func laterEntry(t *testing.T, bundle string) string {
	t.Helper()
	const member = `"integratedTime":`
	at := strings.Index(bundle, member)
	end := at + strings.IndexByte(bundle[at:], ',')
	if at < 0 || end < at {
		t.Fatalf("no %s in %s", member, bundle)
	}
	return bundle[:end-1] + string('0'+(bundle[end-1]-'0'+1)%10) + bundle[end:]
}
