// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestImageOfRandomArchives: 400 archives in which few names meet in every way come out the same in both forms.
func TestImageOfRandomArchives(t *testing.T) {
	needRoot(t)
	good := 0
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 3))
		script := make([]byte, 3*(2+rng.IntN(10)))
		for i := range script {
			script[i] = byte(rng.Uint32())
			if i%3 == 1 { // names without "..", which would end most archives
				script[i] = byte(rng.IntN(10))
			}
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			if _, _, err := unpackIn(t, shortLived(t), assemble(script).end(), Limits{}); err == nil {
				good++
			}
		})
	}
	if good < 90 {
		t.Errorf("only %d archives are right: the test tests little", good)
	}
}

// acl makes the value of a POSIX ACL attribute of tag, permission and id.
func acl(entries ...[3]uint32) string {
	b := []byte{2, 0, 0, 0}
	for _, e := range entries {
		b = append(b, byte(e[0]), byte(e[0]>>8), byte(e[1]), byte(e[1]>>8), byte(e[2]), byte(e[2]>>8), byte(e[2]>>16), byte(e[2]>>24))
	}
	return string(b)
}

const nobody = 1<<32 - 1

// TestImageAttributes: what the kernel makes of an attribute when a directory is unpacked, an image says; what it
// refuses there is refused. A nil want is no error.
func TestImageAttributes(t *testing.T) {
	needRoot(t)
	minimal := acl([3]uint32{1, 7, nobody}, [3]uint32{4, 5, nobody}, [3]uint32{0x20, 0, nobody})
	named := acl([3]uint32{1, 6, nobody}, [3]uint32{2, 7, 1000}, [3]uint32{4, 5, nobody}, [3]uint32{8, 1, 50}, [3]uint32{0x10, 3, nobody}, [3]uint32{0x20, 0, nobody})
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00" + strings.Repeat("\x00", 12)
	set := func(name, value string) *archive {
		return (&archive{}).pax(record("SCHILY.xattr."+name, value)).file("f", "x")
	}
	onDir := func(name, value string) *archive {
		return (&archive{}).pax(record("SCHILY.xattr."+name, value)).dir("d").file("d/f", "x")
	}
	onLink := func(name, value string) *archive {
		return (&archive{}).pax(record("SCHILY.xattr."+name, value)).symlink("l", "x")
	}
	tests := []struct {
		name string
		in   *archive
		want error
	}{
		{"ACL that the mode can say", set("system.posix_acl_access", minimal), nil},
		{"ACL with names", set("system.posix_acl_access", named), nil},
		{"ACL of a directory", onDir("system.posix_acl_access", named), nil},
		{"default ACL", onDir("system.posix_acl_default", named), nil},
		{"default ACL that a mode could say", onDir("system.posix_acl_default", minimal), nil},
		{"empty ACL", set("system.posix_acl_access", acl()), nil},
		{"default ACL of a file", set("system.posix_acl_default", named), unix.EACCES},
		{"ACL of a symbolic link", onLink("system.posix_acl_access", named), unix.EOPNOTSUPP},
		{"ACL without a mask", set("system.posix_acl_access", acl([3]uint32{1, 7, nobody}, [3]uint32{2, 7, 1}, [3]uint32{4, 5, nobody}, [3]uint32{0x20, 0, nobody})), ErrFormat},
		{"ACL without others", set("system.posix_acl_access", acl([3]uint32{1, 7, nobody}, [3]uint32{4, 5, nobody})), ErrFormat},
		{"ACL out of order", set("system.posix_acl_access", acl([3]uint32{4, 5, nobody}, [3]uint32{1, 7, nobody}, [3]uint32{0x20, 0, nobody})), ErrFormat},
		{"ACL with a strange permission", set("system.posix_acl_access", acl([3]uint32{1, 15, nobody}, [3]uint32{4, 5, nobody}, [3]uint32{0x20, 0, nobody})), ErrFormat},
		{"ACL with an unknown tag", set("system.posix_acl_access", acl([3]uint32{1, 7, nobody}, [3]uint32{3, 5, nobody}, [3]uint32{0x20, 0, nobody})), ErrFormat},
		{"ACL of version 1", set("system.posix_acl_access", "\x01\x00\x00\x00"), ErrFormat},
		{"ACL that ends within an entry", set("system.posix_acl_access", named[:10]), ErrFormat},
		{"capability", set("security.capability", capability), nil},
		{"capability of a namespace's root", set("security.capability", "\x01\x00\x00\x03"+capability[4:]+"\x07\x00\x00\x00"), nil},
		{"capability of revision 9", set("security.capability", "\x01\x00\x00\x09"+capability[4:]), unix.EINVAL},
		{"short capability", set("security.capability", capability[:12]), unix.EINVAL},
		{"attribute without a name", set("user.", "x"), unix.EINVAL},
		{"attribute of no namespace", set("com.example", "x"), nil},
		{"user attribute of a symbolic link", onLink("user.note", "x"), nil},
		{"trusted attribute of a symbolic link", onLink("trusted.note", "x"), nil},
		{"empty attribute", set("user.note", ""), nil},
		{"overlayfs's own", onDir("trusted.overlay.opaque", "y"), nil},
		{"SELinux's", set("security.selinux", "system_u"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := bytes.Clone(tt.in.end().Bytes())
			_, _, dirErr := unpack(t, bytes.NewReader(data), Limits{}) // compares the trees
			_, _, err := imageOf(t, data, Limits{})
			if (err == nil) != (tt.want == nil) || !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
			if (dirErr == nil) != (err == nil) {
				t.Errorf("got error %v, the directory has %v", err, dirErr)
			}
		})
	}
}

// TestImageLimits: what the format cannot say, and what would have to be kept in memory, is refused by name.
func TestImageLimits(t *testing.T) {
	big := func(n int) string { return strings.Repeat("v", n) }
	five := make([]string, 5)
	for i := range five {
		five[i] = record(fmt.Sprintf("SCHILY.xattr.user.a%d", i), big(60<<10))
	}
	names := &archive{}
	for i := range 1000 {
		names.file(fmt.Sprintf("file%d", i), "")
	}
	again := &archive{}
	for range 1000 {
		again.file("file", "").dir("d").file("d/file", "").file("d", "")
	}
	tests := []struct {
		name string
		in   *archive
		lim  Limits
		want error
		text string
	}{
		{"attribute of 64 KiB", (&archive{}).pax(record("SCHILY.xattr.user.a", big(64<<10))).file("f", ""), Limits{}, ErrLimit, "65536 bytes"},
		{"attributes of 300 KiB", (&archive{}).pax(five...).file("f", ""), Limits{}, ErrLimit, "attributes of"},
		{"more entries than memory", names, Limits{MemoryBytes: 100 << 10}, ErrLimit, "memory"},
		{"names written again cost nothing", again, Limits{MemoryBytes: 8 << 10}, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := imageOf(t, tt.in.end().Bytes(), tt.lim)
			if !errors.Is(err, tt.want) || tt.want != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got error %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
}

// TestImageFiller: bytes behind a file's end, which a program sees when it maps the file, are zeros.
func TestImageFiller(t *testing.T) {
	a := (&archive{}).block(block{kind: typeFile, name: "f", size: 5})
	a.WriteString("right" + strings.Repeat("w", blockSize-5))
	file, _, err := imageOf(t, a.end().Bytes(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := raw[4096+blockSize:4096+2*blockSize], padded("right"); string(got) != want {
		t.Errorf("got %.20q, want %.20q", got, want)
	}
	needRoot(t)
	f, err := os.Open(filepath.Join(mountImage(t, file), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	if want := "right" + strings.Repeat("\x00", 4091); string(page) != want {
		t.Errorf("mapped, the file ends with %.20q", page[5:])
	}
}

// TestImageErrors: errors of the reader and of the file come back as they are, and not as the archive's fault.
func TestImageErrors(t *testing.T) {
	in := (&archive{}).file("f", strings.Repeat("x", 5000)).end().Bytes()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	broken := errors.New("broken")
	r := io.MultiReader(bytes.NewReader(in[:3000]), readerFunc(func([]byte) (int, error) { return 0, broken }))
	if _, err := Image(t.Context(), f, r, [16]byte{}, Limits{}); !errors.Is(err, broken) || errors.Is(err, ErrTruncated) {
		t.Errorf("got error %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Image(ctx, f, bytes.NewReader(in), [16]byte{}, Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs /dev/full: %v", err)
	}
	defer full.Close()
	_, err = Image(t.Context(), full, bytes.NewReader(in), [16]byte{}, Limits{})
	if !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrFormat) {
		t.Errorf("got error %v, want %v", err, unix.ENOSPC)
	}
}
