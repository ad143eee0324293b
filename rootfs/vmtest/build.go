// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// buildTags are those of the project's own build, so that the build cache is shared with it.
const buildTags = "containers_image_openpgp netgo osusergo runc_nocriu grpcnotrace seccomp"

// Program is something to build for a guest: a static program, since a guest has no libraries.
type Program struct {
	Package string // import path relative to the module, as "./storage/devmapper"
	Test    bool   // its test program instead
	Tags    string // besides those of every build
	Cgo     bool   // link its C parts, with musl
}

// Build builds p into the file out.
func Build(ctx context.Context, p Program, out string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	tags := strings.TrimSpace(buildTags + " " + p.Tags)
	ldflags := "-s -w"
	env := []string{"CGO_ENABLED=0"}
	if p.Cgo {
		if _, err := exec.LookPath("musl-gcc"); err != nil {
			return fmt.Errorf("building %s: %w (`make setup` installs it)", p.Package, err)
		}
		musl, err := muslDirectory(root)
		if err != nil {
			return err
		}
		tags += " muslshim"
		ldflags += ` -linkmode external -extldflags "-static -Wl,--build-id=none"`
		env = []string{"CGO_ENABLED=1", "CC=musl-gcc", "CGO_CFLAGS=-O2 -idirafter " + musl + "/include", "CGO_LDFLAGS=-L" + musl + "/lib"}
	}
	args := []string{"build"}
	if p.Test {
		args = []string{"test", "-c"}
	}
	args = append(args, "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", ldflags, "-o", out, p.Package)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", p.Package, err, bytes.TrimSpace(text))
	}
	if _, err := os.Stat(out); err != nil {
		return fmt.Errorf("building %s: it has no tests", p.Package)
	}
	return nil
}

// muslDirectory makes, as the Makefile does, the directories of links through which musl-gcc sees what Debian keeps for glibc: the kernel's
// headers and libseccomp.
func muslDirectory(root string) (string, error) {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	dir := filepath.Join(root, "build", "musl")
	for name, target := range map[string]string{
		"include/linux":              "/usr/include/linux",
		"include/asm-generic":        "/usr/include/asm-generic",
		"include/asm":                "/usr/include/" + triplet + "/asm",
		"include/seccomp.h":          "/usr/include/seccomp.h",
		"include/seccomp-syscalls.h": "/usr/include/seccomp-syscalls.h",
		"lib/libseccomp.a":           "/usr/lib/" + triplet + "/libseccomp.a",
	} {
		link := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return "", err
		}
		if _, err := os.Stat(target); err != nil {
			return "", fmt.Errorf("%w (`make setup` installs it)", err)
		}
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return dir, nil
}

// moduleRoot finds go.mod above the working directory; tests run in their package's.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}

// CacheDir is the project's directory for things that are made once, build/cache.
func CacheDir() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "build", "cache")
	return dir, os.MkdirAll(dir, 0o755)
}
