// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	"github.com/containers/ocicrypt/keywrap"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

var (
	b64Key   = b64(strings.Repeat("k", 32))
	b64Nonce = b64(strings.Repeat("n", 16))
	b64MAC   = b64(strings.Repeat("m", 32))
	aDigest  = "sha256:" + strings.Repeat("a", 64)
)

func TestParsePublicOptions(t *testing.T) {
	for _, text := range []string{
		`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `","cipheroptions":{}}`,
		`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `","cipheroptions":null}`,
		`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `"}`,
	} {
		mac, err := parsePublicOptions(b64(text))
		if err != nil || string(mac[:]) != strings.Repeat("m", 32) {
			t.Errorf("%s: got %x, %v", text, mac, err)
		}
	}
	for name, annotation := range map[string]string{
		"absent":            "",
		"not base64":        "{}",
		"broken base64":     b64(`{}`)[:3],
		"no object":         b64(`1`),
		"empty object":      b64(`{}`),
		"no cipher":         b64(`{"hmac":"` + b64MAC + `"}`),
		"no HMAC":           b64(`{"cipher":"AES_256_CTR_HMAC_SHA256"}`),
		"empty HMAC":        b64(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":""}`),
		"short HMAC":        b64(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64("m") + `"}`),
		"HMAC not base64":   b64(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"!"}`),
		"other cipher":      b64(`{"cipher":"AES_256_CTR","hmac":"` + b64MAC + `"}`),
		"public nonce":      b64(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `","cipheroptions":{"nonce":"` + b64Nonce + `"}}`),
		"unknown member":    b64(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `","x":1}`),
		"other case":        b64(`{"Cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `"}`),
		"duplicate":         b64(`{"cipher":"x","cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `"}`),
		"trailing":          b64(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `"}{}`),
		"huge":              b64(`{"cipher":"` + strings.Repeat("x", maxPubOpts) + `"}`),
		"newline in base64": b64(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"`+b64MAC+`"}`) + "\n!",
	} {
		if _, err := parsePublicOptions(annotation); !errors.Is(err, ErrEncryption) {
			t.Errorf("%s: got error %v, want %v", name, err, ErrEncryption)
		}
	}
}

func TestParsePrivateOptions(t *testing.T) {
	good := `{"symkey":"` + b64Key + `","digest":"` + aDigest + `","cipheroptions":{"nonce":"` + b64Nonce + `"}}`
	k, err := parsePrivateOptions([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if string(k.key) != strings.Repeat("k", 32) || string(k.nonce[:]) != strings.Repeat("n", 16) || k.digest.String() != aDigest {
		t.Errorf("got %+v", k)
	}
	k.clear()
	if !bytes.Equal(k.key, make([]byte, 32)) {
		t.Error("clear left the key")
	}
	for name, edit := range map[string][2]string{
		"no key":         {`"symkey":"` + b64Key + `",`, ``},
		"short key":      {b64Key, b64(strings.Repeat("k", 16))},
		"long key":       {b64Key, b64(strings.Repeat("k", 33))},
		"no digest":      {`"digest":"` + aDigest + `",`, ``},
		"empty digest":   {aDigest, ``},
		"bad digest":     {aDigest, `sha256:a`},
		"no options":     {`,"cipheroptions":{"nonce":"` + b64Nonce + `"}`, ``},
		"null options":   {`{"nonce":"` + b64Nonce + `"}`, `null`},
		"no nonce":       {`"nonce":"` + b64Nonce + `"`, ``},
		"short nonce":    {b64Nonce, b64(strings.Repeat("n", 12))},
		"more options":   {`"nonce":`, `"mode":"", "nonce":`},
		"unknown member": {`"symkey":`, `"x":1,"symkey":`},
		"duplicate key":  {`"symkey":`, `"symkey":"` + b64Nonce + `","symkey":`},
		"other case":     {`"symkey"`, `"SymKey"`},
		"not an object":  {good, `"` + b64Key + `"`},
		"huge":           {good, good + strings.Repeat(" ", maxPacket)},
	} {
		text := strings.Replace(good, edit[0], edit[1], 1)
		_, err := parsePrivateOptions([]byte(text))
		if !errors.Is(err, ErrEncryption) && !errors.Is(err, ErrManifest) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: got error %v, want %v", name, err, ErrEncryption)
		} else if strings.Contains(err.Error(), b64Key) || strings.Contains(err.Error(), "kkkk") {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
}

func TestUnwrapLayerKey(t *testing.T) {
	keys := new(fakeKeys)
	plain := `{"symkey":"` + b64Key + `","digest":"` + aDigest + `","cipheroptions":{"nonce":"` + b64Nonce + `"}}`
	mine, foreign := base64.StdEncoding.EncodeToString(keys.wrap([]byte(plain))), b64("foreign")
	pubopts := b64(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `"}`)
	provider := annotationKeys + "provider."
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		want        error
		calls       int
	}{
		{"one", map[string]string{provider + "attestation-agent": mine}, nil, 1},
		{"any provider", map[string]string{provider + "x": mine}, nil, 1},
		{"second recipient", map[string]string{provider + "x": foreign + "," + mine}, nil, 2},
		{"second provider", map[string]string{provider + "a": foreign, provider + "b": mine}, nil, 2},
		{"none of mine", map[string]string{provider + "a": foreign}, errNoKey, 1},
		{"beside another scheme", map[string]string{annotationKeys + "jwe": foreign, provider + "a": mine}, nil, 1},
		{"only another scheme", map[string]string{annotationKeys + "jwe": mine}, ErrKey, 0},
		{"none at all", nil, ErrKey, 0},
		{"not base64", map[string]string{provider + "a": "!"}, ErrEncryption, 0},
		{"empty", map[string]string{provider + "a": ""}, ErrEncryption, 0},
		{"trailing comma", map[string]string{provider + "a": mine + ","}, ErrEncryption, 0},
		{"too many", map[string]string{provider + "a": strings.Repeat(foreign+",", maxRecipients) + mine}, ErrEncryption, 0},
		{"too long", map[string]string{provider + "a": b64(strings.Repeat("x", maxPacket+1))}, ErrEncryption, 0},
	} {
		keys.calls = 0
		annotations := map[string]string{annotationPubOpts: pubopts}
		for k, v := range tt.annotations {
			annotations[k] = v
		}
		key, err := unwrapLayerKey(t.Context(), keys, annotations)
		if !errors.Is(err, tt.want) || keys.calls != tt.calls {
			t.Errorf("%s: got error %v after %d calls, want %v after %d", tt.name, err, keys.calls, tt.want, tt.calls)
		} else if err == nil && (string(key.key) != strings.Repeat("k", 32) || string(key.mac[:]) != strings.Repeat("m", 32)) {
			t.Errorf("%s: got %+v", tt.name, key)
		}
	}
	if _, err := unwrapLayerKey(t.Context(), nil, map[string]string{annotationPubOpts: pubopts, provider + "a": mine}); !errors.Is(err, ErrKey) {
		t.Errorf("no key source: got error %v, want %v", err, ErrKey)
	}
}

// ocicryptWrapper lets ocicrypt wrap layer keys for fakeKeys.
type ocicryptWrapper struct{ keys *fakeKeys }

var _ keywrap.KeyWrapper = ocicryptWrapper{}

func (w ocicryptWrapper) WrapKeys(_ *config.EncryptConfig, opts []byte) ([]byte, error) {
	return w.keys.wrap(opts), nil
}
func (w ocicryptWrapper) UnwrapKey(_ *config.DecryptConfig, annotation []byte) ([]byte, error) {
	return w.keys.Unwrap(nil, annotation) //nolint:staticcheck // the fake ignores its context
}
func (ocicryptWrapper) GetAnnotationID() string                      { return annotationKeys + "provider.imagepull-test" }
func (ocicryptWrapper) NoPossibleKeys(map[string][][]byte) bool      { return false }
func (ocicryptWrapper) GetPrivateKeys(map[string][][]byte) [][]byte  { return nil }
func (ocicryptWrapper) GetKeyIdsFromPacket(string) ([]uint64, error) { return nil, nil }
func (ocicryptWrapper) GetRecipients(string) ([]string, error)       { return nil, nil }

// What ocicrypt encrypts opens here, and ocicrypt opens what the tests' own
// encryptor makes: so both speak the format and not only each other's mistakes.
func TestOcicrypt(t *testing.T) {
	keys := new(fakeKeys)
	ocicrypt.RegisterKeyWrapper("provider.imagepull-test", ocicryptWrapper{keys})
	tarball := someTar(t)
	for _, l := range []testLayer{plainLayer(tarball), gzipLayer(t, tarball), zstdLayer(t, tarball)} {
		r, finish, err := ocicrypt.EncryptLayer(&config.EncryptConfig{}, bytes.NewReader(l.blob), ocispec.Descriptor{Digest: digest.Digest(l.digest)})
		if err != nil {
			t.Fatal(err)
		}
		blob, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		annotations, err := finish()
		if err != nil {
			t.Fatal(err)
		}
		theirs := newTestLayer(l.mediaType+encryptedSuffix, blob, tarball)
		theirs.annotations = annotations
		dir, err := openLayer(t, theirs, keys, nil, nil)
		if err != nil {
			t.Fatalf("%s: opening ocicrypt's layer: %v", l.mediaType, err)
		}
		wantFile(t, filepath.Join(dir, "etc/motd"), "hello\n")

		ours := l.encrypted(t, keys)
		ours.annotations[annotationKeys+"provider.imagepull-test"] = ours.annotations[annotationKeys+"provider.attestation-agent"]
		plain, _, err := ocicrypt.DecryptLayer(&config.DecryptConfig{}, bytes.NewReader(ours.blob), ocispec.Descriptor{Annotations: ours.annotations}, false)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, l.blob) {
			t.Errorf("%s: ocicrypt opening ours: %d bytes, %v", l.mediaType, len(got), err)
		}
	}
}

type panickingKeys struct{}

func (panickingKeys) Unwrap(context.Context, []byte) ([]byte, error) { panic("sesame") }

// A panic outside the stages ends the pull, not the process.
func TestPullPanics(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{layers: []testLayer{plainLayer(someTar(t)).encrypted(t, new(fakeKeys))}})
	p := newTestPuller(t, r, func(c *Config) { c.Unwrapper = panickingKeys{} })
	if _, err := p.Pull(t.Context(), r.ref("v1")); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("got error %v, want an internal one", err)
	}
	wantEmpty(t, p)
}
