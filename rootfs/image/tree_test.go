// SPDX-License-Identifier: Apache-2.0

package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// inputs writes a program and two modules into a new directory, with the given time
// and mode: both belong to the machine and must not be seen in an image.
func inputs(t *testing.T, when time.Time, mode os.FileMode) Inputs {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const lib = "/lib/modules/6.1/kernel/"
	return Inputs{
		Program: file("casemate", elfHeader()+strings.Repeat("x", 70_000)),
		Modules: []Module{
			{GuestPath: lib + "b.ko", HostPath: file("b", "module b")},
			{GuestPath: lib + "a.ko", HostPath: file("a", "module a"), Optional: true},
		},
		Extra: []Entry{{Path: "/etc/casemate/casemate.toml", Kind: File, Perm: 0o644, HostPath: file("toml", "[kbs]\n")}},
	}
}

// twice are the same inputs at two dates, in two directories, as two umasks have
// them.
func twice(t *testing.T) [2]Inputs {
	return [2]Inputs{
		inputs(t, time.Unix(1e9, 0), 0o600),
		inputs(t, time.Unix(2e9, 5), 0o755),
	}
}

func defaultRecipeOf(t *testing.T) Recipe {
	t.Helper()
	r, err := DefaultRecipe()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func guestTree(t *testing.T, in Inputs) *Tree {
	t.Helper()
	tree, err := defaultRecipeOf(t).GuestTree(in)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestGuestHolds looks for what the agent, the kernel and kata's runtime expect, and
// for nothing that a guest must not hold.
func TestGuestHolds(t *testing.T) {
	in := inputs(t, time.Now(), 0o755)
	found := make(map[string]Entry)
	for _, e := range guestTree(t, in).Entries() {
		found[e.Path] = e
		if e.Kind == File && e.Perm&0o111 != 0 && e.Path != Program {
			t.Errorf("%s can be executed", e.Path)
		}
	}
	for path, want := range map[string]Entry{
		"/usr/bin/kata-agent": {Kind: File, Perm: 0o755, HostPath: in.Program},
		"/init":               {Kind: Link, Target: "usr/bin/kata-agent"},
		"/sbin/init":          {Kind: Link, Target: "../usr/bin/kata-agent"},
		"/etc/resolv.conf":    {Kind: File, Perm: 0o644},
		"/proc":               {Kind: Directory, Perm: 0o755},
		"/sys":                {Kind: Directory, Perm: 0o755},
		"/run":                {Kind: Directory, Perm: 0o755},
		"/tmp":                {Kind: Directory, Perm: 0o1777},
		"/dev/console":        {Kind: CharDevice, Perm: 0o600, Major: 5, Minor: 1},
		"/etc/casemate/modules": {Kind: File, Perm: 0o644,
			Text: "/lib/modules/6.1/kernel/b.ko\n?/lib/modules/6.1/kernel/a.ko\n"},
	} {
		want.Path = path
		if found[path] != want {
			t.Errorf("got %+v, want %+v", found[path], want)
		}
	}
}

func TestBootTree(t *testing.T) {
	in := inputs(t, time.Now(), 0o755)
	tree, err := defaultRecipeOf(t).BootTree(in, "root_hash=00\n")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]Entry)
	for _, e := range tree.Entries() {
		found[e.Path] = e
	}
	if e := found["/etc/casemate/root"]; e.Text != "root_hash=00\n" {
		t.Errorf("pin: %+v", e)
	}
	if e := found["/init"]; e.Kind != File || e.HostPath != in.Program {
		t.Errorf("init: %+v", e)
	}
}

// TestConfigurationComesBeforeTheProgram: a kernel with too little memory, which the
// host chooses, goes on with what it could unpack of the archive. A program without all
// of the configuration, and a boot without its pin, must not be a prefix of it.
func TestConfigurationComesBeforeTheProgram(t *testing.T) {
	in := inputs(t, time.Now(), 0o755)
	in.Extra = []Entry{{Path: "/etc/casemate/casemate.toml", Kind: File, Perm: 0o644}, {Path: "/etc/zz", Kind: File, Perm: 0o644}}
	boot, err := defaultRecipeOf(t).BootTree(in, "root_hash=00\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, tree := range map[string]*Tree{"guest": guestTree(t, in), "boot": boot} {
		program := false
		for _, e := range tree.Entries() {
			program = program || e.HostPath == in.Program
			if program && strings.HasPrefix(e.Path, "/etc/") {
				t.Errorf("%s: %s comes behind the program", name, e.Path)
			}
		}
		if !program {
			t.Errorf("%s: no program", name)
		}
	}
}

func TestTreeRefuses(t *testing.T) {
	file := func(path string, perm uint32) []Entry { return []Entry{{Path: path, Kind: File, Perm: perm}} }
	for name, list := range map[string][]Entry{
		"relative name":          file("etc/x", 0o644),
		"climbing name":          file("/etc/../x", 0o644),
		"name with a line end":   file("/etc/x\ny", 0o644),
		"the root":               {{Path: "/", Kind: Directory, Perm: 0o755}},
		"set-uid":                file("/usr/bin/su", 0o4755),
		"set-gid":                file("/usr/bin/su", 0o2755),
		"sticky":                 {{Path: "/var/tmp", Kind: Directory, Perm: 0o1777}},
		"writable by all":        file("/etc/x", 0o666),
		"directory for all":      {{Path: "/srv", Kind: Directory, Perm: 0o777}},
		"shell":                  file("/bin/sh", 0o755),
		"shell by a link":        {{Path: "/bin/sh", Kind: Link, Target: "../usr/bin/kata-agent"}},
		"shell of many":          file("/usr/bin/busybox", 0o755),
		"cryptsetup":             file("/usr/sbin/cryptsetup", 0o755),
		"veritysetup":            file("/sbin/veritysetup", 0o755),
		"mkfs":                   file("/sbin/mkfs.ext4", 0o755),
		"dd by a link":           {{Path: "/bin/dd", Kind: Link, Target: "../usr/bin/kata-agent"}},
		"twice":                  append(file("/etc/x", 0o644), file("/etc/x", 0o644)...),
		"below a file":           append(file("/etc/x", 0o644), file("/etc/x/y", 0o644)...),
		"below a link":           {{Path: "/lib", Kind: Link, Target: "usr/lib"}, {Path: "/lib/x", Kind: File}},
		"link to nothing":        {{Path: "/x", Kind: Link}},
		"device among the files": {{Path: "/etc/null", Kind: CharDevice, Perm: 0o666}},
		"no kind":                {{Path: "/x"}},
	} {
		if err := NewTree().Add(list...); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestProgramIsStatic: a guest has no loader and no libraries.
func TestProgramIsStatic(t *testing.T) {
	r, in := defaultRecipeOf(t), inputs(t, time.Now(), 0o755)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	programs := map[string]string{"text": text, "missing": text + "x"}
	if checkStatic(self) != nil { // this test as a rule is linked with a loader
		programs["dynamic"] = self
	}
	for name, program := range programs {
		in.Program = program
		if _, err := r.GuestTree(in); err == nil {
			t.Errorf("%s: accepted in a guest", name)
		}
		if _, err := r.BootTree(in, "pin"); err == nil {
			t.Errorf("%s: accepted in a boot", name)
		}
	}
}

// TestContentRefused are files that can only be judged when they are read.
func TestContentRefused(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"script": script, "directory": dir, "missing": filepath.Join(dir, "none")} {
		e := Entry{Path: "/usr/bin/x", Kind: File, Perm: 0o755, HostPath: path}
		if _, err := e.Size(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestParseRecipe(t *testing.T) {
	for name, text := range map[string]string{
		"unknown key":   "[guest]\nshell = true\n",
		"repeated key":  "[boot]\nmodules = []\nmodules = []\n",
		"no toml":       "[guest",
		"another shape": "[guest]\nfiles = [\"x\"]\n",
	} {
		if _, err := ParseRecipe(text); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	r, err := ParseRecipe("[guest.files]\n\"/bin/sh\" = \"\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.GuestTree(inputs(t, time.Now(), 0o755)); err == nil || !strings.Contains(err.Error(), "shell") {
		t.Errorf("a recipe with a shell: got %v", err)
	}
	names, optional := ModuleNames([]string{"a", "?b"})
	if len(names) != 2 || names[1] != "b" || optional["a"] || !optional["b"] {
		t.Errorf("got %q, %v", names, optional)
	}
}
