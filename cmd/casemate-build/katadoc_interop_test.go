// SPDX-License-Identifier: Apache-2.0

//go:build interop

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/cmd/internal/fixture"
	"github.com/casemate/casemate/rootfs/kernel"
)

// commands are the shell lines of one step of a how-to: whole blocks, and of those that
// show output the lines behind "$ ".
func commands(t *testing.T, file, from, to string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, step, ok1 := strings.Cut(string(text), "\n"+from)
	step, _, ok2 := strings.Cut(step, "\n"+to)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no step %q", file, from)
	}
	var lines []string
	for i, block := range strings.Split(step, "```") {
		if i%2 == 0 || strings.HasPrefix(block, "toml") || strings.HasPrefix(strings.TrimSpace(block), "ok ") {
			continue
		}
		shown := strings.HasPrefix(strings.TrimSpace(block), "$ ")
		for line := range strings.Lines(block) {
			command, prompt := strings.CutPrefix(line, "$ ")
			if !shown || prompt {
				lines = append(lines, command)
			}
		}
	}
	return strings.Join(lines, "")
}

// osbuilder stands for kata's scripts: a root of Debian with the agent put in, as
// tools/osbuilder/rootfs-builder does it, and no image of it.
const osbuilder = `make() { :; }
sudo() { while [ "$1" = -E ]; do shift; done; "$@"; }
mkdir -p kata-containers/tools/osbuilder/rootfs-builder kata-containers/tools/osbuilder/image-builder
cat >kata-containers/tools/osbuilder/rootfs-builder/rootfs.sh <<'END'
#!/bin/sh -e
[ "$1" = -r ] && [ "$3" = debian ] && [ "$CONFIDENTIAL_GUEST" = yes ] && [ "$MEASURED_ROOTFS" = yes ]
mkdir "$2"
tar -C "$2" -xf "$DEBIAN_TAR"
install -D -m 0755 "$AGENT_SOURCE_BIN" "$2/usr/bin/kata-agent"
if [ "$AGENT_INIT" = yes ]; then ln -sfn ../bin/kata-agent "$2/usr/sbin/init"; fi
END
printf '#!/bin/sh\nexit 0\n' >kata-containers/tools/osbuilder/image-builder/image_builder.sh
chmod +x kata-containers/tools/osbuilder/*/*.sh
`

// TestInteropKataHowTo runs what docs/how-to/kata.md says, the check of the root that comes
// out of the overlay last of all, on a real Debian.
func TestInteropKataHowTo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a root file system is unpacked by root")
	}
	cache, err := filepath.Abs("../../build/cache")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kernel.Prepare(t.Context(), filepath.Join(cache, "kernel")); err != nil {
		t.Fatal(err)
	}
	tar, err := fixture.DebianTar(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "user/casemate"), 0o755), os.Symlink(filepath.Join(cache, "kernel"), filepath.Join(dir, "user/casemate/kernel")),
		os.Symlink(bin, filepath.Join(dir, "bin")), os.WriteFile(filepath.Join(dir, "casemate.toml"), []byte("# of this owner\n"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	script := "set -e\n" + osbuilder + commands(t, "../../docs/how-to/kata.md", "## 2.", "## 3.")
	for _, want := range []string{"rootfs initramfs", "rootfs image", "rootfs overlay", "rootfs extension", "rootfs check ROOTFS"} {
		if !strings.Contains(script, "casemate-build "+want) {
			t.Errorf("the how-to does not say %q", want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "XDG_CACHE_HOME=" + filepath.Join(dir, "user"), "DEBIAN_TAR=" + tar}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{"ok       /usr/bin/kata-agent is a static program", "ok       /init leads to the agent", "ok       no file is set-uid", "verity_params = "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	checks := strings.Count(string(out), "\nok       ")
	fmt.Printf("rootfs: %d expectations of kata met by Debian's root with the overlay\n", checks)
	if strings.Contains(string(out), "\nmissing ") || checks < 10 {
		t.Errorf("%d checks:\n%s", checks, out)
	}
}
