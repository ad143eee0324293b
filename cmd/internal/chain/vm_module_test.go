// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module builds the kernel's test provider of TSM reports, testdata/tsm, against the
// headers of the kernel that the guests run, which are downloaded once.
func (b *ownerBuild) module(ctx context.Context) (string, error) {
	headers, err := b.headers(ctx)
	if err != nil {
		return "", fmt.Errorf("preparing the kernel's headers: %w", err)
	}
	dir := filepath.Join(b.dir, "tsm")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "tsm"))); err != nil {
		return "", err
	}
	// The kernel's build reads MAKEFLAGS, and type information would need pahole.
	cmd := exec.CommandContext(ctx, "make", "-C", headers, "M="+dir, "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules")
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the kernel module: %w: %s", err, bytes.TrimSpace(out))
	}
	return filepath.Join(dir, "casemate_tsm.ko"), nil
}

// headers returns the directory that modules are built in.
func (b *ownerBuild) headers(ctx context.Context) (string, error) {
	version, ok := strings.CutSuffix(b.kernel.Version, "-cloud-amd64")
	if !ok {
		return "", fmt.Errorf("kernel %s is none of Debian's cloud kernels", b.kernel.Version)
	}
	dir := filepath.Join(b.dir, "headers-"+version)
	build := filepath.Join(dir, "usr/src/linux-headers-"+b.kernel.Version)
	if _, err := os.Stat(filepath.Join(build, "Makefile.done")); err == nil {
		return build, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	run := func(name string, args ...string) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("running %s: %w: %s", name, err, bytes.TrimSpace(out))
		}
		return nil
	}
	if err := run("apt-get", "-q", "download", "linux-headers-"+b.kernel.Version, "linux-headers-"+version+"-common", "linux-kbuild-"+version); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, deb := range debs {
		if err := run("dpkg-deb", "-x", deb, dir); err != nil {
			return "", err
		}
		if err := os.Remove(deb); err != nil {
			return "", err
		}
	}
	// The one file that names the place where the package would be installed.
	makefile := filepath.Join(build, "Makefile")
	text, err := os.ReadFile(makefile)
	if err != nil {
		return "", err
	}
	text = bytes.ReplaceAll(text, []byte("/usr/src/"), []byte(filepath.Join(dir, "usr/src")+"/"))
	if err := os.WriteFile(makefile, text, 0o644); err != nil {
		return "", err
	}
	return build, os.WriteFile(filepath.Join(build, "Makefile.done"), nil, 0o644)
}
