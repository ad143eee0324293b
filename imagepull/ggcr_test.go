// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"io"
	"log"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// What another implementation pushes to another implementation's registry.
func TestPullForeignRegistry(t *testing.T) {
	s := httptest.NewServer(memory.New(memory.Logger(log.New(io.Discard, "", 0))))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	img, err := random.Image(10<<10, 5)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg.OS, cfg.Architecture = platform.OS, platform.Architecture
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	other, err := random.Image(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, typeOCIIndex),
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "mips"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}})
	ref, err := name.ParseReference(host + "/a/b:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	p := newTestPuller(t, nil, func(c *Config) { c.Insecure = []string{host} })
	got := mustPull(t, p, ref.Name())
	if got.Digest != digest || got.Manifest != manifest || len(got.Layers) != 5 {
		t.Errorf("got %s, manifest %s, %d layers; want %s, %s, 5", got.Digest, got.Manifest, len(got.Layers), digest, manifest)
	}
}
