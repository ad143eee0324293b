// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n"
	testGroup  = "root:x:0:\nweb:x:34:\nextra:x:50:web\nlogs:x:51:web,root\n"
)

func accountsImage(t testing.TB) testImage {
	t.Helper()
	return testImage{
		layers: []testLayer{gzipLayer(t, tarOf(t, entry{name: "etc/", typ: tar.TypeDir},
			entry{name: "etc/passwd", body: testPasswd}, entry{name: "etc/group", body: testGroup}))},
		config: map[string]any{"User": "web", "Entrypoint": []string{"/bin/app"}, "Cmd": []string{"serve"}, "Env": []string{"A=1", "B=2"}, "WorkingDir": "srv/../data"},
	}
}

func TestBundle(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", accountsImage(t))
	img := mustPull(t, newTestPuller(t, r), r.ref("v1"))
	base, _, _ := overlayDirs(t)
	dir := filepath.Join(base, "bundle")
	b, err := NewBundle(img, dir, BundleOptions{Env: []string{"B=3", "C=4"}, Hostname: "h"})
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(b.Rootfs, "etc/passwd"), testPasswd)
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var written specs.Spec
	if err := json.Unmarshal(raw, &written); err != nil || !reflect.DeepEqual(&written, b.Spec) {
		t.Errorf("config.json differs from the spec: %v", err)
	}
	p := b.Spec.Process
	if want := []string{"/bin/app", "serve"}; !slices.Equal(p.Args, want) {
		t.Errorf("args: got %q, want %q", p.Args, want)
	}
	if want := []string{defaultPath, "A=1", "B=3", "C=4"}; !slices.Equal(p.Env, want) {
		t.Errorf("env: got %q, want %q", p.Env, want)
	}
	if p.Cwd != "/data" || p.User.UID != 33 || p.User.GID != 34 || !slices.Equal(p.User.AdditionalGids, []uint32{34, 50, 51}) {
		t.Errorf("cwd %s, user %+v", p.Cwd, p.User)
	}
	if c := p.Capabilities; len(c.Bounding) != 14 || len(c.Inheritable)+len(c.Ambient) != 0 || slices.Contains(c.Bounding, "CAP_SYS_ADMIN") {
		t.Errorf("capabilities: %+v", c)
	}
	for _, m := range b.Spec.Mounts {
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			t.Errorf("something of the guest is mounted: %+v", m)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("bundle directory: %v, %v", info.Mode(), err)
	}
	if _, err := NewBundle(img, dir, BundleOptions{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("second bundle in one directory: got error %v, want %v", err, os.ErrExist)
	}
	wantFile(t, filepath.Join(b.Rootfs, "etc/passwd"), testPasswd)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	wantFile(t, filepath.Join(img.Layers[0], "etc/passwd"), testPasswd)
}

// A bundle that cannot be made leaves no mount and no directory.
func TestBundleFails(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", accountsImage(t))
	img := mustPull(t, newTestPuller(t, r), r.ref("v1"))
	base, _, _ := overlayDirs(t)
	for name, opts := range map[string]BundleOptions{
		"unknown user": {User: "nobody-here"},
		"bad env":      {Env: []string{"novalue"}},
		"no args":      {Entrypoint: []string{}},
		"NUL":          {Args: []string{"a\x00b"}},
		"bad upper":    {Upper: "/proc/self/upper", Work: "/proc/self/work"},
	} {
		dir := filepath.Join(base, "b")
		if _, err := NewBundle(img, dir, opts); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: bundle directory: %v", name, err)
		}
	}
	if at, err := mountedFrom(filepath.Dir(img.Layers[0])); err != nil || at != "" {
		t.Errorf("still mounted at %s: %v", at, err)
	}
}

func TestNewSpecArgs(t *testing.T) {
	for _, tt := range []struct {
		name            string
		entrypoint, cmd []string
		opts            BundleOptions
		want            []string
	}{
		{"both", []string{"e"}, []string{"c"}, BundleOptions{}, []string{"e", "c"}},
		{"cmd alone", nil, []string{"c"}, BundleOptions{}, []string{"c"}},
		{"args replace cmd", []string{"e"}, []string{"c"}, BundleOptions{Args: []string{"a"}}, []string{"e", "a"}},
		{"no args replace cmd", []string{"e"}, []string{"c"}, BundleOptions{Args: []string{}}, []string{"e"}},
		{"entrypoint drops cmd", []string{"e"}, []string{"c"}, BundleOptions{Entrypoint: []string{"x"}}, []string{"x"}},
		{"entrypoint and args", []string{"e"}, []string{"c"}, BundleOptions{Entrypoint: []string{"x"}, Args: []string{"a"}}, []string{"x", "a"}},
		{"nothing", nil, nil, BundleOptions{}, nil},
		{"empty name", []string{""}, nil, BundleOptions{}, nil},
	} {
		spec, err := newSpec(ocispec.ImageConfig{Entrypoint: tt.entrypoint, Cmd: tt.cmd}, t.TempDir(), tt.opts)
		if tt.want == nil {
			if !errors.Is(err, ErrUnsupported) {
				t.Errorf("%s: got error %v, want %v", tt.name, err, ErrUnsupported)
			}
		} else if err != nil || !slices.Equal(spec.Process.Args, tt.want) {
			t.Errorf("%s: got %v, %v, want %q", tt.name, spec, err, tt.want)
		}
	}
	has := func(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
		return slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind && n.Path == "" })
	}
	for _, private := range []bool{false, true} {
		spec, err := newSpec(ocispec.ImageConfig{Cmd: []string{"c"}}, t.TempDir(), BundleOptions{PrivateNetwork: private})
		if err != nil {
			t.Fatal(err)
		}
		if has(spec, specs.NetworkNamespace) != private || !has(spec, specs.PIDNamespace) || !has(spec, specs.MountNamespace) || !has(spec, specs.IPCNamespace) || !has(spec, specs.UTSNamespace) {
			t.Errorf("private network %v: namespaces %v", private, spec.Linux.Namespaces)
		}
	}
}

func TestMergeEnv(t *testing.T) {
	got, err := mergeEnv([]string{"PATH=/x", "A=1", "EMPTY=", "A=2"}, []string{"A=3=4"})
	if want := []string{"PATH=/x", "A=3=4", "EMPTY="}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, bad := range []string{"", "A", "=x"} {
		if _, err := mergeEnv([]string{bad}); err == nil || strings.Contains(err.Error(), "\""+bad+"\"") {
			t.Errorf("%q: got error %v", bad, err)
		}
	}
}

func TestResolveUser(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		os.Remove(filepath.Join(root, name))
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/passwd", testPasswd+"minus:x:-1:-1::/:\nwrap:x:4294967296:0::/:\nmax:x:4294967295:0::/:\nmaxgroup:x:1:4294967296::/:\nin:x:7:7::/:\nshort:x\n")
	write("etc/group", testGroup+"evil:x:4294967296:in\n")
	for _, tt := range []struct {
		spec     string
		uid, gid uint32
		more     []uint32
		ok       bool
	}{
		{"", 0, 0, []uint32{0, 51}, true},
		{"root", 0, 0, []uint32{0, 51}, true},
		{"web", 33, 34, []uint32{34, 50, 51}, true},
		{"33", 33, 34, []uint32{34, 50, 51}, true},
		{"web:extra", 33, 50, []uint32{50}, true},
		{"1000", 1000, 0, []uint32{0}, true},
		{"1000:1001", 1000, 1001, []uint32{1001}, true},
		{"nobody", 0, 0, nil, false},
		{"web:nogroup", 0, 0, nil, false},
		{"minus", 0, 0, nil, false},
		{"wrap", 0, 0, nil, false},
		{"max", 0, 0, nil, false},
		{"maxgroup", 0, 0, nil, false},
		{"in", 0, 0, nil, false},
		{"-1", 0, 0, nil, false},
		{"4294967296", 0, 0, nil, false},
		{"0:4294967296", 0, 0, nil, false},
	} {
		u, err := ResolveUser(root, tt.spec)
		if tt.ok != (err == nil) {
			t.Errorf("%q: got error %v", tt.spec, err)
		} else if tt.ok && (u.UID != tt.uid || u.GID != tt.gid || !slices.Equal(u.AdditionalGids, tt.more)) {
			t.Errorf("%q: got %+v", tt.spec, u)
		}
	}
}

// The image's account files are read inside the image, whatever they are. In CVE-2024-9676 and CVE-2024-9341 a link or a
// FIFO in their place made the engine read the host's, or wait for ever.
func TestResolveUserHostileFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("web:x:0:0::/:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		make func(path string) error
		ok   bool // the file counts as absent: a numeric user resolves
	}{
		"absolute link out":   {func(p string) error { return os.Symlink(outside, p) }, true},
		"relative link out":   {func(p string) error { return os.Symlink("../../../../../.."+outside, p) }, true},
		"link to itself":      {func(p string) error { return os.Symlink("passwd", p) }, false},
		"magic link":          {func(p string) error { return os.Symlink("/proc/self/root"+outside, p) }, true},
		"FIFO":                {func(p string) error { return unix.Mkfifo(p, 0o644) }, false},
		"directory":           {func(p string) error { return os.Mkdir(p, 0o755) }, false},
		"over its cap":        {func(p string) error { return os.WriteFile(p, make([]byte, maxAccounts+1), 0o644) }, false},
		"a line over its cap": {func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("x", 100<<10)), 0o644) }, false},
	} {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := tt.make(filepath.Join(root, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		if u, err := ResolveUser(root, "web"); err == nil {
			t.Errorf("%s: web is %+v", name, u)
		}
		if _, err := ResolveUser(root, "5"); (err == nil) != tt.ok {
			t.Errorf("%s: got error %v for a numeric user", name, err)
		}
	}
	// A link that stays inside, absolute as seen from inside, is followed.
	root := t.TempDir()
	for _, d := range []string{"etc", "store"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "store/passwd"), []byte(testPasswd), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/store/passwd", filepath.Join(root, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if u, err := ResolveUser(root, "web"); err != nil || u.UID != 33 {
		t.Errorf("link inside: got %+v, %v", u, err)
	}
}
