// SPDX-License-Identifier: Apache-2.0

// The race detector multiplies the memory that is measured here.

//go:build !race

package imagepull

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// memoryBudget is what a pull may add to the process, whatever the image.
	memoryBudget = 64 << 20
	childStore   = "IMAGEPULL_TEST_STORE"
	childRef     = "IMAGEPULL_TEST_REFERENCE"
	childForm    = "IMAGEPULL_TEST_FORM"
)

// status reads a line of /proc/self/status, in bytes.
func status(t *testing.T, field string) int64 {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), field+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no %s in /proc/self/status", field)
	return 0
}

// TestPullMemoryChild is the process that TestPullMemory measures.
func TestPullMemoryChild(t *testing.T) {
	store, ref := os.Getenv(childStore), os.Getenv(childRef)
	if store == "" {
		t.Skip("runs as a child of TestPullMemory")
	}
	host, _, _ := strings.Cut(ref, "/")
	p, err := New(Config{Store: store, Form: childsForm(), Policy: acceptAnything(t), Unwrapper: nameIsKey{}, Insecure: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	before := status(t, "VmRSS")
	if _, err := p.Pull(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("grown %d\n", status(t, "VmHWM")-before)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// childsForm is the form of store that a child was told to use.
func childsForm() Form {
	if os.Getenv(childForm) == FormErofs.String() {
		return FormErofs
	}
	return FormDirectories
}

// nameIsKey opens packets that are the private options themselves.
type nameIsKey struct{}

func (nameIsKey) Unwrap(_ context.Context, packet []byte) ([]byte, error) {
	return bytes.Clone(packet), nil
}

// A pull needs the same memory for a small and for a large layer.
func TestPullMemory(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("pulls 170 MiB a format")
	}
	base, _, _ := overlayDirs(t) // a tmpfs
	piece := textPiece()
	for _, run := range []struct {
		format string
		form   Form
	}{{"gzip", FormDirectories}, {"zstd", FormDirectories}, {"gzip", FormErofs}} {
		format := run.format
		r := newRegistryFake(t)
		r.put(t, "v1", testImage{layers: []testLayer{largeLayer(t, format, piece, 10), largeLayer(t, format, piece, 2), largeLayer(t, format, piece, 3)}})
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPullMemoryChild$", "-test.v")
		cmd.Env = append(os.Environ(), childStore+"="+base+"/"+format, childRef+"="+r.ref("v1"), childForm+"="+run.form.String())
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		_, rest, _ := strings.Cut(string(out), "grown ")
		line, _, _ := strings.Cut(rest, "\n")
		grown, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		t.Logf("%s, %s: the process grew by %d MiB", format, run.form, grown>>20)
		if grown > memoryBudget {
			t.Errorf("%s, %s: the process grew by %d MiB, want at most %d", format, run.form, grown>>20, memoryBudget>>20)
		}
		if err := os.RemoveAll(base + "/" + format); err != nil {
			t.Error(err)
		}
	}
}

// largeLayer is an encrypted layer with one file, piece n times over. The same
// gzip member or zstd frame stands in it again and again.
func largeLayer(t testing.TB, format string, piece []byte, n int) testLayer {
	t.Helper()
	mediaType, compress := typeGzip, gzipOf
	if format == "zstd" {
		mediaType, compress = typeZstd, zstdOf
	}
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(n * len(piece))}); err != nil {
		t.Fatal(err)
	}
	pieces := slices.Concat([][]byte{head.Bytes()}, slices.Repeat([][]byte{piece}, n), [][]byte{make([]byte, 1024)})
	diffID := sha256.New()
	packed := map[*byte][]byte{}
	var blob []byte
	for _, b := range pieces {
		diffID.Write(b)
		if packed[&b[0]] == nil {
			packed[&b[0]] = compress(t, b)
		}
		blob = append(blob, packed[&b[0]]...)
	}
	keys := new(fakeKeys)
	l := newTestLayer(mediaType, blob, nil)
	l.diffID = "sha256:" + hex.EncodeToString(diffID.Sum(nil))
	l = l.encrypted(t, keys)
	for _, plain := range keys.packets {
		l.annotations[annotationKeys+"provider.attestation-agent"] = b64(string(plain))
	}
	return l
}

const largePiece = 12 << 20 // more than a zstd window

// textPiece compresses about as well as text.
func textPiece() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4096)
	for i := range words {
		words[i] = strconv.FormatUint(rng.Uint64()>>rng.IntN(60), 36) + " "
	}
	var b []byte
	for len(b) < largePiece {
		b = append(b, words[int(rng.ExpFloat64()*400)%len(words)]...)
	}
	return b[:largePiece]
}

// BenchmarkPull pulls an encrypted image of three layers to a tmpfs.
func BenchmarkPull(b *testing.B) {
	base, _, _ := overlayDirs(b)
	piece := textPiece()
	for _, format := range []string{"gzip", "zstd"} {
		r := newRegistryFake(b)
		r.put(b, "v1", testImage{layers: []testLayer{largeLayer(b, format, piece, 16), largeLayer(b, format, piece, 17), largeLayer(b, format, piece, 18)}})
		b.Run(format, func(b *testing.B) {
			b.SetBytes((16 + 17 + 18) * largePiece)
			var before, after unix.Rusage
			if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				p := newTestPuller(b, r, func(c *Config) { c.Store, c.Unwrapper = base+"/store", nameIsKey{} })
				mustPull(b, p, r.ref("v1"))
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			}
			if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
				b.Fatal(err)
			}
			cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(cpu)/1e9/float64(b.N), "cpu-s/op")
		})
	}
}
