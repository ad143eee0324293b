// SPDX-License-Identifier: Apache-2.0

package image

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// elfHeader is the smallest static ELF file, a header without segments.
func elfHeader() string {
	header := make([]byte, 64)
	copy(header, "\x7fELF\x02\x01\x01")
	copy(header[16:], "\x02\x00\x3e\x00\x01\x00\x00\x00") // an executable for x86-64
	header[52], header[54], header[58] = 64, 56, 64
	return string(header)
}

// staticProgram is this test's stand-in for casemate.
func staticProgram(t *testing.T, dir string) string {
	t.Helper()
	write(t, []byte(elfHeader()), 0o755, dir, "casemate")
	return filepath.Join(dir, "casemate")
}

// osbuilder makes a root as kata's rootfs.sh does with the overlay's variables: a
// distribution's files, the agent of AGENT_SOURCE_BIN, with AGENT_INIT=yes as init,
// and the overlay's root over it.
func osbuilder(t *testing.T, init Init) string {
	t.Helper()
	dir := t.TempDir()
	root, overlay := filepath.Join(dir, "ROOTFS_DIR"), filepath.Join(dir, "overlay")
	tree, err := defaultRecipeOf(t).OverlayTree(init, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteOverlay(overlay, staticProgram(t, dir), init, tree); err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(filepath.Join(overlay, "osbuilder.env"))
	if err != nil || !strings.Contains(string(env), `AGENT_SOURCE_BIN="$PWD/kata-agent"`) {
		t.Fatalf("%s, %v", env, err)
	}
	for _, name := range []string{"usr/bin", "usr/sbin", "usr/lib/systemd", "proc", "sys", "dev", "run", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link(t, "usr/sbin", root, "sbin")
	link(t, "usr/lib", root, "lib")
	agent, err := os.ReadFile(filepath.Join(overlay, "kata-agent"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, agent, 0o755, root, "usr/bin/kata-agent")
	write(t, nil, 0o755, root, "usr/lib/systemd/systemd")
	if strings.Contains(string(env), "AGENT_INIT=yes") {
		link(t, "../bin/kata-agent", root, "usr/sbin/init")
	} else {
		link(t, "/lib/systemd/systemd", root, "usr/sbin/init")
	}
	over := filepath.Join(overlay, "rootfs")
	err = filepath.WalkDir(over, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(root, strings.TrimPrefix(name, over))
		switch d.Type() {
		case fs.ModeDir:
			return os.MkdirAll(to, 0o755)
		case fs.ModeSymlink:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(target, to)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func link(t *testing.T, target string, name ...string) {
	t.Helper()
	if err := os.Symlink(target, filepath.Join(name...)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, text []byte, mode fs.FileMode, name ...string) {
	t.Helper()
	file := filepath.Join(name...)
	if err := os.WriteFile(file, text, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
}

func problems(t *testing.T, root string) []string {
	t.Helper()
	findings, err := CheckKata(root)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range findings {
		if f.Problem != "" {
			list = append(list, f.Expected+": "+f.Problem)
		}
	}
	return list
}

// TestOverlayMakesKataRoot: osbuilder's root with the overlay has all that kata
// expects, with either init, and so has the guest of the recipe.
func TestOverlayMakesKataRoot(t *testing.T) {
	for _, init := range []Init{InitAgent, InitSystemd} {
		if list := problems(t, osbuilder(t, init)); len(list) > 0 {
			t.Errorf("%s: %q", init, list)
		}
	}
	dir := t.TempDir()
	in := twice(t)[0]
	in.Program = staticProgram(t, dir)
	own := filepath.Join(dir, "own")
	if err := WriteDir(own, guestTree(t, in)); err != nil {
		t.Fatal(err)
	}
	if list := problems(t, own); len(list) > 0 {
		t.Errorf("the recipe's guest: %q", list)
	}
	if info, err := os.Stat(filepath.Join(own, "tmp")); err != nil || info.Mode() != fs.ModeDir|fs.ModeSticky|0o777 {
		t.Errorf("/tmp: %v, %v", info.Mode(), err)
	}
	if err := WriteDir(own, guestTree(t, in)); err == nil {
		t.Error("a directory that exists was written to")
	}
}

// TestCheckKataFinds breaks a good root in one way at a time.
func TestCheckKataFinds(t *testing.T) {
	remove := func(name string) func(string) {
		return func(root string) {
			if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	replace := func(name, target string) func(string) {
		return func(root string) {
			remove(name)(root)
			link(t, target, root, name)
		}
	}
	fill := func(name, text string, mode fs.FileMode) func(string) {
		return func(root string) {
			remove(name)(root)
			write(t, []byte(text), mode, root, name)
		}
	}
	const systemd, agent = InitSystemd, InitAgent
	for _, tt := range []struct {
		name string
		init Init
		do   func(root string)
		want string
	}{
		{"no agent", systemd, remove("usr/bin/kata-agent"), "static program: it is missing"},
		{"agent that is a link", systemd, replace("usr/bin/kata-agent", "/usr/lib/systemd/systemd"), "no regular file"},
		{"agent that is a script", agent, fill("usr/bin/kata-agent", "#!/bin/sh\n", 0o755), "no ELF file"},
		{"agent without the x bit", agent, fill("usr/bin/kata-agent", "\x7fELF", 0o644), "cannot be executed"},
		{"no init", agent, remove("usr/sbin/init"), "/sbin/init is"},
		{"another init", agent, replace("usr/sbin/init", "../bin/true"), "it is missing"},
		{"init outside", agent, replace("usr/sbin/init", "../../../../../../bin/true"), "it is missing"},
		{"init that leads in a circle", agent, replace("usr/sbin/init", "init"), "over 40 links"},
		{"busybox as init", agent, func(root string) {
			replace("usr/sbin/init", "/usr/bin/busybox")(root)
			write(t, nil, 0o755, root, "usr/bin/busybox")
		}, "it leads to /usr/bin/busybox"},
		{"no /init", agent, remove("init"), "/init leads to the agent"},
		{"no unit", systemd, remove("usr/lib/systemd/system/kata-agent.service"), "kata-agent.service starts the agent: it is missing"},
		{"unit of another", systemd, fill("usr/lib/systemd/system/kata-agent.service", "[Service]\nExecStart=/bin/true\n", 0o644), "does not start"},
		{"no target", systemd, remove("usr/lib/systemd/system/kata-containers.target"), "kata-containers.target"},
		{"no machine-id", systemd, remove("etc/machine-id"), "machine-id"},
		{"resolv.conf as a link", agent, replace("etc/resolv.conf", "../run/resolv.conf"), "resolv.conf is a file"},
		{"no resolv.conf", agent, remove("etc/resolv.conf"), "resolv.conf is a file"},
		{"no mount point", agent, remove("proc"), "/proc is a directory"},
		{"mount point that is a file", agent, fill("run", "", 0o644), "/run is a directory"},
		{"set-uid program", systemd, fill("usr/bin/su", "", 0o755|fs.ModeSetuid), "set-uid or set-gid: /usr/bin/su"},
	} {
		root := osbuilder(t, tt.init)
		tt.do(root)
		if list := problems(t, root); !slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, tt.want) }) {
			t.Errorf("%s: got %q, want %q", tt.name, list, tt.want)
		}
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "none"), staticProgram(t, t.TempDir())} {
		if _, err := CheckKata(name); err == nil {
			t.Errorf("%s was checked", name)
		}
	}
}

func TestOverlayRefuses(t *testing.T) {
	r := defaultRecipeOf(t)
	if _, err := r.OverlayTree("busybox", nil); err == nil {
		t.Error("an unknown init was accepted")
	}
	tree, err := r.OverlayTree(InitAgent, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteOverlay(filepath.Join(t.TempDir(), "x"), "/nonexistent", InitAgent, tree); err == nil {
		t.Error("an overlay without a program was written")
	}
	if err := WriteOverlay(t.TempDir(), staticProgram(t, t.TempDir()), InitAgent, tree); err == nil {
		t.Error("a directory that exists was written to")
	}
}
