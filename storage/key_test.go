// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func keyFile(t *testing.T, dir, name string, content []byte, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// TestFileKeys: the bytes are the key as they are, and only files that are private in a private directory count.
func TestFileKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	keyFile(t, dir, "good", []byte("a key\n"), 0o400)
	keyFile(t, dir, "longest", make([]byte, maxKey), 0o600)
	keyFile(t, dir, "long", make([]byte, maxKey+1), 0o600)
	keyFile(t, dir, "empty", nil, 0o600)
	keyFile(t, dir, "group", []byte("k"), 0o640)
	keyFile(t, dir, "others", []byte("k"), 0o604)
	keyFile(t, filepath.Dir(dir), "outside", []byte("k"), 0o600)
	if err := os.Symlink("good", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	keyFile(t, filepath.Join(dir, "sub"), "key", []byte("k"), 0o600)
	k := FileKeys{Dir: dir}
	if got, err := k.Key(t.Context(), "file://"+dir+"/good"); err != nil || string(got) != "a key\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := k.Key(t.Context(), "file://"+dir+"/longest"); err != nil || !bytes.Equal(got, make([]byte, maxKey)) {
		t.Errorf("longest: %d bytes, %v", len(got), err)
	}
	for name, want := range map[string]string{
		"long": "at most", "empty": "empty", "group": "0640", "others": "0604", "link": "too many levels", "fifo": "no regular file",
		"sub": "no regular file", "sub/key": "/NAME", "../outside": "/NAME", "": "/NAME", ".": "/NAME", "..": "/NAME", "none": "no such file",
	} {
		if _, err := k.Key(t.Context(), "file://"+dir+"/"+name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	for _, uri := range []string{"kbs:///a/b/c", "/" + dir + "/good", "file://" + filepath.Dir(dir) + "/outside", "file:///dev/zero", ""} {
		if _, err := k.Key(t.Context(), uri); err == nil || !strings.Contains(err.Error(), "/NAME") {
			t.Errorf("%s: got %v", uri, err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Key(t.Context(), "file://"+dir+"/good"); err == nil || !strings.Contains(err.Error(), "directory: its mode") {
		t.Errorf("open directory: got %v", err)
	}
}
