// SPDX-License-Identifier: Apache-2.0

//go:build interop

package deb

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// names are the packages; each has its program at /usr/bin.
var names = []string{"casemate", "casemate-build", "keybroker"}

func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// packages builds all packages into a new directory.
func packages(t *testing.T, script string, umask string) map[string]string {
	t.Helper()
	out := t.TempDir()
	run(t, t.TempDir(), []string{"SOURCE_DATE_EPOCH=1700000000"}, "sh", "-c", `umask "$1" && exec "$2" "$3"`, "sh", umask, script, out)
	files := map[string]string{}
	for _, name := range names {
		match, err := filepath.Glob(filepath.Join(out, name+"_*.deb"))
		if err != nil || len(match) != 1 {
			t.Fatalf("%s: got %q, %v", name, match, err)
		}
		files[name] = match[0]
	}
	return files
}

// TestInteropPackages builds the packages twice, by another umask in another directory,
// wants the same bytes, and looks with dpkg at what is in them.
func TestInteropPackages(t *testing.T) {
	script, err := filepath.Abs("build")
	if err != nil {
		t.Fatal(err)
	}
	first, second := packages(t, script, "022"), packages(t, script, "077")
	root := t.TempDir()
	for _, name := range names {
		a, err := os.ReadFile(first[name])
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(second[name])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: two builds differ", name)
		}
		fmt.Printf("deb: %s %d bytes sha256 %x\n", filepath.Base(first[name]), len(a), sha256.Sum256(a))
		contents(t, name, first[name])
		run(t, "", nil, "dpkg-deb", "-x", first[name], root)
	}
	for _, name := range names {
		if out := run(t, "", nil, filepath.Join(root, "usr/bin", name), "version"); !strings.Contains(out, strings.Split(filepath.Base(first[name]), "_")[1]) {
			t.Errorf("%s version: %q", name, out)
		}
	}
	if text := run(t, "", nil, "dpkg-deb", "-f", first["casemate"], "Description"); !strings.Contains(text, "casemate is not measured") {
		t.Errorf("the description does not say what is not proved: %s", text)
	}
	units(t, root)
	installs(t, first)
}

// contents wants every file that the list names, no other, root's, with the fixed time, and
// nobody but root able to write.
func contents(t *testing.T, name, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(name, "files"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		want["."+f[2]] = map[string]string{"644": "-rw-r--r--", "755": "-rwxr-xr-x"}[f[0]]
	}
	last := ""
	for line := range strings.Lines(run(t, "", []string{"TZ=UTC"}, "dpkg-deb", "-c", file)) {
		f := strings.Fields(line) // mode owner size date time name
		if len(f) != 6 || f[1] != "root/root" || f[3]+" "+f[4] != "2023-11-14 22:13" {
			t.Errorf("%s: %s", name, line)
			continue
		}
		if strings.HasSuffix(f[5], "/") {
			if f[0] != "drwxr-xr-x" {
				t.Errorf("%s: %s", name, line)
			}
		} else if want[f[5]] != f[0] {
			t.Errorf("%s: %s, want mode %q", name, line, want[f[5]])
		}
		if f[5] < last && !strings.HasSuffix(last, "/") && filepath.Dir(f[5]) == filepath.Dir(last) {
			t.Errorf("%s: %s follows %s", name, f[5], last)
		}
		last = f[5]
		delete(want, f[5])
	}
	if len(want) > 0 {
		t.Errorf("%s: missing %v", name, want)
	}
	control := run(t, "", nil, "dpkg-deb", "-I", file)
	for _, script := range []string{"preinst", "postinst", "prerm", "postrm"} {
		if strings.Contains(control, script) {
			t.Errorf("%s has a maintainer script:\n%s", name, control)
		}
	}
}

// units asks systemd whether it understands them, with the programs that they start in
// their places.
func units(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(root, "usr/lib/systemd/system")
	for _, target := range []string{"sysinit", "basic", "shutdown", "network-online", "multi-user"} {
		if err := os.WriteFile(filepath.Join(dir, target+".target"), []byte("[Unit]\nDescription=of the distribution\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, unit := range []string{"casemate.service", "keybroker.service"} {
		// A key that it does not know is a warning.
		if out := run(t, "", nil, "systemd-analyze", "verify", "--man=no", "--root="+root, "/usr/lib/systemd/system/"+unit); out != "" {
			t.Errorf("%s: %s", unit, out)
		}
	}
}

// installs puts the packages into an empty system, finds them whole there, and takes them
// away again without a trace.
func installs(t *testing.T, files map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("dpkg installs as root only")
	}
	root := t.TempDir()
	for _, dir := range []string{"info", "updates", "triggers"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) string {
		return run(t, "", nil, "dpkg", append([]string{"--root=" + root, "--log=/dev/null"}, args...)...)
	}
	var all []string
	for _, name := range names {
		all = append(all, files[name])
	}
	dpkg(append([]string{"-i"}, all...)...)
	dpkg("--audit")
	for _, name := range names {
		if out := dpkg("-V", name); out != "" {
			t.Errorf("%s: dpkg -V: %s", name, out)
		}
		if list := strings.Split(dpkg("-L", name), "\n"); !slices.Contains(list, "/usr/bin/"+name) {
			t.Errorf("%s: dpkg -L: %q", name, list)
		}
	}
	dpkg(append([]string{"--purge"}, names...)...)
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(root, "usr/bin", name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "usr/share/doc")); err == nil {
		t.Error("documentation is still there")
	}
}
