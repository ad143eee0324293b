// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A layer that claims nearly 2^63 bytes, sent in chunks so that no length
// contradicts it, beside a small one for the same place in the store.
func TestHugeDeclaredSize(t *testing.T) {
	tarball := tarOf(t, entry{name: "a", body: "x"})
	for _, size := range []int64{maxBlob + 1, math.MaxInt64 - 1, math.MaxInt64} {
		r := newRegistryFake(t)
		huge := gzipLayer(t, tarball)
		huge.size = size
		r.put(t, "v1", testImage{layers: []testLayer{plainLayer(tarball), huge}})
		r.handle = func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, "/blobs/"+huge.digest) {
				return false
			}
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			w.Write(huge.blob)
			return true
		}
		p := newTestPuller(t, r)
		mustFail(t, p, r.ref("v1"), ErrTooLarge)
		if n := r.blobRequests(); n != 0 {
			t.Errorf("size %d: %d blobs were asked for", size, n)
		}
		wantEmpty(t, p)
	}
}

func TestDescriptorSize(t *testing.T) {
	for _, tt := range []struct {
		size string
		want error
	}{
		{"0", nil},
		{fmt.Sprint(int64(maxBlob)), nil},
		{fmt.Sprint(int64(maxBlob) + 1), ErrTooLarge},
		{"9223372036854775807", ErrTooLarge},
		{"9223372036854775808", ErrManifest},
		{"-1", ErrManifest},
		{"null", ErrManifest},
	} {
		d := func(mediaType, size string) string {
			return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%s}`, mediaType, digestOf(nil), size)
		}
		for name, raw := range map[string]string{
			"layer":  `{"schemaVersion":2,"config":` + d(typeOCIConfig, "1") + `,"layers":[` + d(typeGzip, tt.size) + `]}`,
			"config": `{"schemaVersion":2,"config":` + d(typeOCIConfig, tt.size) + `,"layers":[]}`,
			"entry":  `{"schemaVersion":2,"manifests":[` + d(typeOCIManifest, tt.size) + `]}`,
		} {
			if _, err := parseDocument([]byte(raw), v1.Hash{}); !errors.Is(err, tt.want) {
				t.Errorf("%s of size %s: got error %v, want %v", name, tt.size, err, tt.want)
			}
		}
	}
}

// Millions of empty descriptors in one document are refused at the limit, not
// decoded first: 4 MiB of them would take more than 100 MiB.
func TestManyDescriptors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit int
	}{{"layers", maxLayers}, {"manifests", maxEntries}} {
		begin := fmt.Sprintf(`{"schemaVersion":2,%q:[`, tt.name)
		raw := []byte(begin + strings.Repeat("{},", (maxDocument-len(begin)-4)/3) + "{}]}")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parseDocument(raw, v1.Hash{})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrManifest) {
			t.Errorf("%s: got error %v, want %v alone", tt.name, err, ErrTooLarge)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > maxDocument {
			t.Errorf("%s: %d bytes were allocated for %d of JSON", tt.name, got, len(raw))
		}
		// One too many is refused, the limit itself is not.
		for n, want := range map[int]error{tt.limit: ErrManifest, tt.limit + 1: ErrTooLarge} {
			raw := begin + strings.Repeat("{},", n-1) + "{}]"
			if tt.name == "layers" {
				raw += fmt.Sprintf(`,"config":{"mediaType":%q,"digest":%q,"size":1}`, typeOCIConfig, digestOf(nil))
			}
			// Within the limit the empty descriptors themselves are at fault: no digest.
			_, err := parseDocument([]byte(raw+"}"), v1.Hash{})
			if errors.Is(err, ErrTooLarge) != (want == ErrTooLarge) || err == nil {
				t.Errorf("%d %s: got error %v", n, tt.name, err)
			}
		}
	}
}

func TestDescriptorArrays(t *testing.T) {
	for _, raw := range []string{
		`{"schemaVersion":2,"manifests":{}}`,
		`{"schemaVersion":2,"manifests":"x"}`,
		`{"schemaVersion":2,"manifests":null}`,
		`{"schemaVersion":2,"manifests":[1]}`,
		`{"schemaVersion":2,"manifests":[{}`,
		`{"schemaVersion":2,"manifests":[}`,
		`{"schemaVersion":2,"layers":1}`,
	} {
		if _, err := parseDocument([]byte(raw), v1.Hash{}); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: got error %v, want %v", raw, err, ErrManifest)
		}
	}
	doc, err := parseDocument([]byte(`{"schemaVersion":2,"manifests":[],"layers":null}`), v1.Hash{})
	if err != nil || doc.index == nil {
		t.Errorf("an empty index: got %+v, %v", doc, err)
	}
}
