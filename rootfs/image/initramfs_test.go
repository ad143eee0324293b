// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func initramfs(t *testing.T, in Inputs, c Compression) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteInitramfs(&b, guestTree(t, in), c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestInitramfsTwice: two dates, two directories, two modes, the same bytes.
func TestInitramfsTwice(t *testing.T) {
	in := twice(t)
	for _, c := range []Compression{Zstd, Gzip, None} {
		if !bytes.Equal(initramfs(t, in[0], c), initramfs(t, in[1], c)) {
			t.Errorf("%s: two builds differ", c)
		}
	}
	changed := in[0]
	changed.Extra = append(changed.Extra, Entry{Path: "/etc/more", Kind: File, Text: "x", Perm: 0o644})
	if bytes.Equal(initramfs(t, in[0], None), initramfs(t, changed, None)) {
		t.Error("one more file does not show")
	}
}

// TestInitramfsListing has GNU cpio say what is in the archive, by owner and time.
func TestInitramfsListing(t *testing.T) {
	program, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio to compare with")
	}
	r, err := zstd.NewReader(bytes.NewReader(initramfs(t, twice(t)[0], Zstd)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-tvn", "--quiet")
	cmd.Stdin, cmd.Env = bytes.NewReader(plain), []string{"TZ=UTC", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); fields[2] != "0" || fields[3] != "0" || !strings.Contains(line, "Jan  1  1970") {
			t.Errorf("owner or time of the machine: %s", line)
		}
	}
	for _, want := range []string{" init -> usr/bin/kata-agent", " usr/bin/kata-agent\n", " etc/casemate/modules\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestInitramfsFails(t *testing.T) {
	tree := guestTree(t, twice(t)[0])
	for _, c := range []Compression{Zstd, Gzip, None} {
		if err := WriteInitramfs(fullDisk{}, tree, c); err == nil {
			t.Errorf("%s: a full disk was not noticed", c)
		}
	}
	if err := WriteInitramfs(io.Discard, tree, "lz4"); err == nil {
		t.Error("an unknown compression was accepted")
	}
	if err := tree.Add(Entry{Path: "/gone", Kind: File, HostPath: "/nonexistent"}); err != nil {
		t.Fatal(err)
	}
	if err := WriteInitramfs(io.Discard, tree, None); err == nil {
		t.Error("a missing file was not noticed")
	}
}
