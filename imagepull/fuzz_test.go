// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"encoding/base64"
	"path"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func wellFormed(t *testing.T, d descriptor) {
	t.Helper()
	if d.size < 0 {
		t.Errorf("size %d", d.size)
	}
	if again, err := parseDigest(d.digest.String()); err != nil || again != d.digest {
		t.Errorf("digest %q is not canonical: %v", d.digest, err)
	}
}

func FuzzParseDocument(f *testing.F) {
	digest := digestOf([]byte("x"))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + typeOCIManifest + `","config":{"mediaType":"` + typeOCIConfig + `","digest":"` + digest + `","size":1},"layers":[{"mediaType":"` + typeGzip + `+encrypted","digest":"` + digest + `","size":7,"annotations":{"a":"b"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"` + typeOCIManifest + `","digest":"` + digest + `","size":1,"platform":{"os":"linux","architecture":"arm64","variant":"v8.2"}}]}`))
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, err := parseDocument(raw, v1.Hash{})
		if err != nil {
			return
		}
		if doc.index != nil && (doc.layers != nil || len(doc.index) > maxEntries) || len(doc.layers) > maxLayers {
			t.Errorf("got %+v", doc)
		}
		for _, d := range doc.index {
			wellFormed(t, d)
		}
		if doc.index == nil {
			wellFormed(t, doc.config)
		}
		for _, l := range doc.layers {
			wellFormed(t, l.descriptor)
		}
		if picked, err := choose(doc.index, defaultPlatform()); err == nil && len(picked) == 0 {
			t.Error("nothing chosen and no error")
		}
		for _, d := range doc.index {
			if d.platform != nil {
				suits(*d.platform, ocispec.Platform{OS: d.platform.OS, Architecture: d.platform.Architecture})
			}
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","architecture":"amd64","config":{"Env":["A=b"],"Cmd":["x"],"Volumes":{"/v":{}}},"rootfs":{"type":"layers","diff_ids":["`+digestOf(nil)+`"]}}`), 1)
	f.Fuzz(func(t *testing.T, raw []byte, layers int) {
		c, err := parseConfig(raw, layers)
		if err == nil && len(c.diffIDs) != layers {
			t.Errorf("got %d diff_ids, want %d", len(c.diffIDs), layers)
		}
	})
}

func FuzzParseSignatures(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"layers":[{"mediaType":"` + typeSimpleSigning + `","digest":"` + digestOf(nil) + `","size":0,"annotations":{"` + annotationSignature + `":"c2ln"}}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		found, err := parseSignatures(raw)
		if err == nil && len(found) > maxSignatures {
			t.Errorf("got %d signatures", len(found))
		}
		for _, d := range found {
			wellFormed(t, d)
		}
	})
}

func FuzzParseReferrers(f *testing.F) {
	f.Add(indexOf(indexEntry([]byte("x"), typeSigstoreBundle)))
	f.Add([]byte(`{"schemaVersion":2,"artifactType":"` + typeSigstoreBundle + `","layers":[{"mediaType":"` + typeSigstoreBundle + `","digest":"` + digestOf(nil) + `","size":0}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		found, err := parseReferrers(raw)
		if err == nil && len(found) > maxBundles {
			t.Errorf("got %d bundles", len(found))
		}
		for _, d := range found {
			wellFormed(t, d)
		}
		if d, err := parseBundleManifest(raw); err == nil && d != nil {
			wellFormed(t, *d)
		}
	})
}

func FuzzParsePublicOptions(f *testing.F) {
	f.Add([]byte(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + b64MAC + `","cipheroptions":{}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _ = parsePublicOptions(string(raw))
		if mac, err := parsePublicOptions(base64.StdEncoding.EncodeToString(raw)); err != nil && mac != [32]byte{} {
			t.Error("a MAC beside an error")
		}
	})
}

func FuzzParsePrivateOptions(f *testing.F) {
	f.Add([]byte(`{"symkey":"` + b64Key + `","digest":"` + aDigest + `","cipheroptions":{"nonce":"` + b64Nonce + `"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := parsePrivateOptions(raw)
		if err == nil && (len(k.key) != layerKeyLen || k.digest.Hex == "") {
			t.Errorf("got %+v", k)
		}
	})
}

func FuzzWrappedKeys(f *testing.F) {
	f.Add("provider.x", "YQ==,Yg==")
	f.Fuzz(func(t *testing.T, scheme, value string) {
		packets, err := wrappedKeys(map[string]string{annotationKeys + scheme: value})
		if err == nil && (len(packets) == 0 || len(packets) > maxRecipients) {
			t.Errorf("got %d packets", len(packets))
		}
	})
}

func FuzzParseAuthFile(f *testing.F) {
	f.Add([]byte(`{"auths":{"a.example/x":{"auth":"YTpi"},"https://index.docker.io/v1/":{"auth":"YTpi"},"h":{}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := ParseAuthFile(raw)
		if err == nil {
			a.lookup(name.MustParseReference("a.example/x/y").Context())
		}
	})
}

func FuzzParseRegistries(f *testing.F) {
	f.Add([]byte("[[registry]]\nprefix='*.a.example'\nlocation='b.example/x'\n[[registry.mirror]]\nlocation='c.example'\ninsecure=true"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseRegistries(raw)
		if err != nil {
			return
		}
		places, err := r.endpoints(name.MustParseReference("x.a.example/y:1"), nil)
		if err == nil && len(places) > maxEndpoints {
			t.Errorf("got %d places, want at most %d", len(places), maxEndpoints)
		}
	})
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"alpine", "oci:/x:y", "a.example/b/../c:d", "a.example:5000/b@sha256:" + digestOf(nil)[7:], "http://x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := parseReference(s, []string{"a.example"})
		switch {
		case err != nil:
		case ref.name == nil:
			t.Errorf("%q: no name", s)
		case path.Clean("/"+ref.name.Context().RepositoryStr()) != "/"+ref.name.Context().RepositoryStr():
			t.Errorf("%q: another repository to who cleans paths", s)
		}
	})
}
