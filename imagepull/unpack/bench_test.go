// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// benchArchive is an archive with the shape of a base image: many small files, some large ones. 12 800 files, 137 MB.
func benchArchive() []byte {
	a := &archive{}
	content := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 1<<16)
	for d := range 1280 {
		dir := fmt.Sprintf("usr/share/part%d/dir%d", d%40, d)
		a.dir(dir)
		for f := range 10 {
			a.file(fmt.Sprintf("%s/file%d", dir, f), content[f:f+f*f*80+100])
		}
		if d%16 == 0 {
			a.file(fmt.Sprintf("%s/library.so", dir), content[:1_320_000])
		}
	}
	return a.end().Bytes()
}

// BenchmarkLayer writes the archive to memory, and has GNU tar do the same from the same file: op is one archive.
func BenchmarkLayer(b *testing.B) {
	needRoot(b)
	work, err := os.MkdirTemp("/dev/shm", "bench")
	if err != nil {
		b.Skipf("needs tmpfs: %v", err)
	}
	b.Cleanup(func() { os.RemoveAll(work) })
	data := benchArchive()
	file := filepath.Join(work, "layer.tar")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		b.Fatal(err)
	}
	out := filepath.Join(work, "out")
	fresh := func(b *testing.B) {
		b.StopTimer()
		if err := os.RemoveAll(out); err != nil {
			b.Fatal(err)
		}
		if err := os.Mkdir(out, 0o755); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.Run("file", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for range b.N {
			fresh(b)
			f, err := os.Open(file)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := Layer(context.Background(), out, f, Limits{}); err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
	b.Run("memory", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for range b.N {
			fresh(b)
			if _, err := Layer(context.Background(), out, bytes.NewReader(data), Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("image", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for range b.N {
			fresh(b)
			f, err := os.Create(filepath.Join(out, "image"))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := Image(context.Background(), f, bytes.NewReader(data), [16]byte{}, Limits{}); err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
	b.Run("peer=tar", func(b *testing.B) {
		if _, err := exec.LookPath("tar"); err != nil {
			b.Skipf("needs tar: %v", err)
		}
		b.SetBytes(int64(len(data)))
		for range b.N {
			fresh(b)
			if msg, err := exec.Command("tar", "-xf", file, "-C", out).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, msg)
			}
		}
	})
}
