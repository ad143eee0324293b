// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hexB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

	goodManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + hexA + `","size":2},
"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:` + hexB + `","size":3,"annotations":{"a":"b"}}]}`
	goodIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",
"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + hexB + `","size":3,"platform":{"os":"linux","architecture":"amd64"}}]}`
)

func TestParseManifest(t *testing.T) {
	m, err := ParseManifest([]byte(goodManifest))
	if err != nil || len(m.Layers) != 1 || m.Layers[0].Digest.Hex != hexB || m.Layers[0].Size != 3 {
		t.Errorf("got %+v, %v", m, err)
	}
	i, err := ParseIndex([]byte(goodIndex))
	if err != nil || len(i.Manifests) != 1 || i.Manifests[0].Platform.String() != "linux/amd64" {
		t.Errorf("got %+v, %v", i, err)
	}
}

var hostileManifests = map[string]struct{ old, new string }{
	"layers twice":              {`"layers"`, `"layers":[],"layers"`},
	"layers in another case":    {`"layers"`, `"Layers":[{}],"schemaVersion":2,"layers"`},
	"digest twice":              {`"size":3`, `"size":3,"digest":"sha256:` + hexA + `"`},
	"sha512":                    {"sha256:" + hexB, "sha512:" + hexB + hexB},
	"short digest":              {"sha256:" + hexB, "sha256:bb"},
	"path in a digest":          {"sha256:" + hexB, "sha256:../../../../etc/passwd" + strings.Repeat("b", 39)},
	"negative size":             {`"size":3`, `"size":-3`},
	"fractional size":           {`"size":3`, `"size":3.5`},
	"no size overflow":          {`"size":3`, `"size":99999999999999999999`},
	"schema 1":                  {`"schemaVersion":2`, `"schemaVersion":1`},
	"no schema":                 {`"schemaVersion":2,`, ``},
	"index where an image is":   {"image.manifest.v1+json\",\n\"config", "image.index.v1+json\",\n\"config"},
	"configuration without end": {`"size":2`, `"size":99999999999`},
	"layer without media type":  {`"mediaType":"application/vnd.oci.image.layer.v1.tar",`, ``},
	"trailing document":         {"}]}", "}]}{}"},
	"invalid UTF-8":             {`"a":"b"`, "\"a\":\"\xff\""},
	"over the cap":              {"}]}", "}]}" + strings.Repeat(" ", MaxManifestBytes)},
}

func TestParseManifestRefuses(t *testing.T) {
	for name, c := range hostileManifests {
		raw := strings.Replace(goodManifest, c.old, c.new, 1)
		if raw == goodManifest {
			t.Errorf("%s alters nothing", name)
		}
		if m, err := ParseManifest([]byte(raw)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, m)
		}
	}
	for _, raw := range []string{"", "[]", "null", goodManifest} {
		if m, err := ParseIndex([]byte(raw)); err == nil {
			t.Errorf("index %q: got %+v, want an error", raw, m)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Add([]byte(goodIndex))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if m, err := ParseManifest(raw); err == nil {
			for _, d := range append(m.Layers, m.Config) {
				if len(d.Digest.Hex) != 64 || strings.Trim(d.Digest.Hex, "0123456789abcdef") != "" || d.Size < 0 {
					t.Errorf("accepted the descriptor %+v", d)
				}
			}
		}
		if m, err := ParseIndex(raw); err == nil {
			for _, d := range m.Manifests {
				if len(d.Digest.Hex) != 64 || d.Size < 0 {
					t.Errorf("accepted the descriptor %+v", d)
				}
			}
		}
	})
}

func TestVerify(t *testing.T) {
	good := []byte("some blob")
	hash, size, err := v1.SHA256(bytes.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	desc := v1.Descriptor{Digest: hash, Size: size}
	for name, c := range map[string]struct {
		blob string
		want string
	}{
		"as promised": {"some blob", ""},
		"other bytes": {"same blob", "digest"},
		"too short":   {"some blo", "ends after 8"},
		"empty":       {"", "ends after 0"},
		"too long":    {"some blob!", "longer"},
		"very long":   {strings.Repeat("some blob", 1000), "longer"},
	} {
		got, err := io.ReadAll(Verify(io.NopCloser(strings.NewReader(c.blob)), desc))
		if c.want == "" && (err != nil || !bytes.Equal(got, good)) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}
