// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"strings"
	"sync"
	"testing"
)

// TestProgress: the last word about a pull is that all is there; an image whose
// layers are in the store has nothing to report; the image says what admitted it.
func TestProgress(t *testing.T) {
	r, keys := newRegistryFake(t), &fakeKeys{}
	body := tarOf(t, entry{name: "data", body: strings.Repeat("x", 1<<20)})
	plain, secret := plainLayer(someTar(t)), plainLayer(body).encrypted(t, keys)
	r.put(t, "v1", testImage{layers: []testLayer{plain, secret, plain}})
	var mu sync.Mutex
	var told []Progress
	p := newTestPuller(t, r, func(c *Config) {
		c.Unwrapper = keys
		c.Progress = func(p Progress) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, p)
		}
	})
	img := mustPull(t, p, r.ref("v1"))
	if img.Encrypted != 1 || img.Admitted != "default insecureAcceptAnything" {
		t.Errorf("got %d encrypted, admitted by %q", img.Encrypted, img.Admitted)
	}
	mu.Lock()
	last := told[len(told)-1]
	mu.Unlock()
	want := plain.size + secret.size
	if last.Layers != 2 || last.Unpacked != 2 || last.Bytes != want || last.Fetched != want || last.Reference != r.ref("v1") {
		t.Errorf("got %+v, want 2 layers of %d bytes", last, want)
	}
	mustPull(t, p, r.ref("v1"))
	mu.Lock()
	defer mu.Unlock()
	if last := told[len(told)-1]; last.Layers != 0 || last.Bytes != 0 || last.Fetched != 0 {
		t.Errorf("cached image: got %+v, want nothing to fetch", last)
	}
}
