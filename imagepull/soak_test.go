// SPDX-License-Identifier: Apache-2.0

//go:build soak

package imagepull

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// count reads how often a run repeats from the environment, as make soak sets it.
func count(t *testing.T, name string) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a count; run make soak", name, os.Getenv(name))
	}
	return n
}

// soakImage has layers of each kind, with bytes that do not compress, so that
// every cut falls into a blob.
func soakImage(t *testing.T, keys *fakeKeys) testImage {
	noise := func(n int) string {
		b := make([]byte, n)
		rng := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
		_, _ = rng.Read(b)
		return string(b)
	}
	base := tarOf(t, entry{name: "etc/", typ: tar.TypeDir}, entry{name: "etc/os", body: noise(900_000)}, entry{name: "old", body: "gone"})
	data := tarOf(t, entry{name: "data", body: noise(2_500_000)}, entry{name: ".wh.old"})
	last := tarOf(t, entry{name: "bin/", typ: tar.TypeDir}, entry{name: "bin/app", body: noise(400_000), mode: 0o755})
	return testImage{layers: []testLayer{gzipLayer(t, base).encrypted(t, keys), zstdLayer(t, data), plainLayer(last).encrypted(t, keys)}}
}

// cutter is a registry behind a line that breaks: each answer to a blob request
// ends after a random number of bytes, at least one block of progress.
type cutter struct {
	mu   sync.Mutex
	sent map[string]int64 // bytes of each blob that went out
	cuts int
}

func (c *cutter) handler(r *registryFake) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/blobs/") {
			return false
		}
		digest := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
		out := &cutWriter{ResponseWriter: w, left: stallBytes + rand.Int64N(1<<20)}
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.sent[digest] += out.sent
			if out.left == 0 {
				c.cuts++
				panic(http.ErrAbortHandler)
			}
		}()
		r.serve(out, req)
		return true
	}
}

type cutWriter struct {
	http.ResponseWriter
	left, sent int64
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		p = p[:w.left]
	}
	n, err := w.ResponseWriter.Write(p)
	w.left -= int64(n)
	w.sent += int64(n)
	if err == nil && w.left == 0 {
		err = io.ErrClosedPipe
	}
	return n, err
}

// TestSoakCuts pulls from a registry that breaks every connection: all pulls
// succeed and no byte is paid for more than twice.
func TestSoakCuts(t *testing.T) {
	needRoot(t)
	n, cuts := count(t, "FAULTS"), 0
	keys := &fakeKeys{}
	r := newRegistryFake(t)
	r.put(t, "v1", soakImage(t, keys))
	for i := range n {
		c := &cutter{sent: map[string]int64{}}
		r.mu.Lock()
		r.handle = c.handler(r)
		r.mu.Unlock()
		p := newTestPuller(t, r, func(cfg *Config) { cfg.Unwrapper = keys })
		if _, err := p.Pull(t.Context(), r.ref("v1")); err != nil {
			t.Fatalf("pull %d of %d: %v", i+1, n, err)
		}
		c.mu.Lock()
		for digest, sent := range c.sent {
			if limit := 2 * int64(len(r.blobs[digest])); sent > limit {
				t.Errorf("pull %d: %d bytes of blob %s went out, at most %d may", i+1, sent, digest, limit)
			}
		}
		cuts += c.cuts
		c.mu.Unlock()
	}
	if cuts < n {
		t.Errorf("only %d cuts in %d pulls: the line does not break", cuts, n)
	}
	fmt.Printf("soak: %d pulls over %d cut connections, all complete\n", n, cuts)
}

// TestSoakKillChild is the process that TestSoakKill kills.
func TestSoakKillChild(t *testing.T) {
	store, ref := os.Getenv(childStore), os.Getenv(childRef)
	if store == "" {
		t.Skip("runs as a child of TestSoakKill")
	}
	host, _, _ := strings.Cut(ref, "/")
	p, err := New(Config{Store: store, Form: childsForm(), Policy: acceptAnything(t), Unwrapper: nameIsKey{}, Insecure: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("pulling")
	if _, err := p.Pull(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
}

// TestSoakKill kills a pull at random moments, in both forms of the store:
// whatever has a layer's name then is that whole layer, and the next pull into the
// same store completes.
func TestSoakKill(t *testing.T) {
	needRoot(t)
	for _, form := range []Form{FormDirectories, FormErofs} {
		t.Run(form.String(), func(t *testing.T) { soakKill(t, form) })
	}
}

func soakKill(t *testing.T, form Form) {
	n := count(t, "KILLS")
	r, whole := killImage(t)
	store := filepath.Join(t.TempDir(), "store")
	named := 0
	for i := range n {
		killOnePull(t, store, r.ref("v1"), form)
		homes, err := filepath.Glob(filepath.Join(store, "layers", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, home := range homes {
			named++
			wantOneOf(t, treeOf(t, home), whole)
		}
		p := newTestPuller(t, r, func(cfg *Config) { cfg.Store, cfg.Form, cfg.Unwrapper = store, form, nameIsKey{} })
		img, err := p.Pull(t.Context(), r.ref("v1"))
		if err != nil {
			t.Fatalf("pull after kill %d of %d: %v", i+1, n, err)
		}
		for _, dir := range img.Layers {
			wantOneOf(t, dir, whole)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("soak: %d kills over %s, %d layers had their names, each of them whole\n", n, form, named)
}

// treeOf is a layer's tree: its home, or the image in it, which is mounted here
// where the killed process had not come to that.
func treeOf(t *testing.T, home string) string {
	t.Helper()
	tree := filepath.Join(home, imageTree)
	if _, err := os.Stat(filepath.Join(home, imageFile)); err != nil {
		return home
	}
	if entries, err := os.ReadDir(tree); err == nil && len(entries) > 0 {
		return tree
	}
	if err := mountImageFile(filepath.Join(home, imageFile), tree); err != nil {
		t.Fatalf("a named image cannot be mounted: %v", err)
	}
	return tree
}

// killImage is an image of five one-file layers and what is in them.
func killImage(t *testing.T) (*registryFake, map[string]string) {
	t.Helper()
	r, whole := newRegistryFake(t), map[string]string{}
	var img testImage
	for i := range 5 {
		name, body := fmt.Sprintf("file%d", i), strings.Repeat(fmt.Sprintf("line %d of a layer\n", i), 200_000)
		whole[name] = body
		img.layers = append(img.layers, gzipLayer(t, tarOf(t, entry{name: name, body: body})))
	}
	r.put(t, "v1", img)
	// Slow enough that a kill falls into every stage.
	r.handle = func(http.ResponseWriter, *http.Request) bool {
		time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
		return false
	}
	return r, whole
}

func killOnePull(t *testing.T, store, ref string, form Form) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestSoakKillChild$")
	cmd.Env = append(os.Environ(), childStore+"="+store, childRef+"="+ref, childForm+"="+form.String())
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("pulling\n"))); err != nil {
		t.Fatalf("waiting for the child's pull: %v", err)
	}
	time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// wantOneOf fails unless dir holds exactly one file, whole.
func wantOneOf(t *testing.T, dir string, whole map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("%s has %d entries, want 1", dir, len(entries))
		return
	}
	got, err := os.ReadFile(filepath.Join(dir, entries[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, []byte(whole[entries[0].Name()])) {
		t.Errorf("%s/%s is not the layer's file: %d bytes", dir, entries[0].Name(), len(got))
	}
}
