// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MetaPackage depends on the newest kernel of its series.
const MetaPackage = "linux-image-6.12-cloud-amd64"

// setupHint ends errors about things that a prepared machine has.
const setupHint = "(`make setup` installs what is missing)"

// Kernel is an unpacked kernel package.
type Kernel struct {
	Version string // as in /lib/modules/VERSION
	Image   string // path of the uncompressed ELF image
	// Compressed is the path of the kernel as it was packaged, an EFI program.
	Compressed string
	root       string // where the package is unpacked
	modules    string // cache of decompressed modules
}

// Prepare returns the kernel of the meta package, from the cache if it is there. Several processes may call it at
// the same time.
func Prepare(ctx context.Context, cache string) (*Kernel, error) {
	name, err := resolve(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := Lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	k := &Kernel{
		Image: filepath.Join(dir, "vmlinux"), root: filepath.Join(dir, "root"), modules: filepath.Join(dir, "modules"),
	}
	if _, err := os.Stat(k.Image); errors.Is(err, fs.ErrNotExist) {
		if err := k.unpack(ctx, dir, name); err != nil {
			return nil, fmt.Errorf("preparing kernel package %s: %w", name, err)
		}
	}
	versions, err := filepath.Glob(filepath.Join(k.root, "lib/modules/*"))
	if err != nil || len(versions) != 1 {
		return nil, fmt.Errorf("preparing kernel package %s: it has modules for %d kernels", name, len(versions))
	}
	k.Version = filepath.Base(versions[0])
	k.Compressed = filepath.Join(k.root, "boot", "vmlinuz-"+k.Version)
	return k, nil
}

// WithModules returns a kernel of which only the modules are known: those below dir, which is a lib/modules/VERSION
// of any distribution. Decompressed modules go to cache, which must serve this kernel alone; the caller removes it.
func WithModules(dir, cache string) (*Kernel, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	parent := filepath.Dir(dir)
	if filepath.Base(parent) != "modules" || filepath.Base(filepath.Dir(parent)) != "lib" {
		return nil, fmt.Errorf("finding modules in %s: want a directory lib/modules/VERSION", dir)
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("finding modules: %w", err)
	}
	return &Kernel{Version: filepath.Base(dir), root: filepath.Dir(filepath.Dir(parent)), modules: filepath.Join(cache, "modules")}, nil
}

// resolve asks apt which package the meta package stands for at present.
func resolve(ctx context.Context) (string, error) {
	out, err := run(ctx, "", "apt-cache", "depends", "--important", MetaPackage)
	if err != nil {
		return "", fmt.Errorf("resolving %s: %w %s", MetaPackage, err, setupHint)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + name, nil
		}
	}
	return "", fmt.Errorf("resolving %s: apt knows no such package %s", MetaPackage, setupHint)
}

// unpack downloads the package and makes the image; the image comes last and says that all is there.
func (k *Kernel) unpack(ctx context.Context, dir, name string) error {
	if err := os.RemoveAll(k.root); err != nil {
		return err
	}
	if _, err := run(ctx, dir, "apt-get", "-q", "download", name); err != nil {
		return fmt.Errorf("%w %s", err, setupHint)
	}
	debs, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("%d downloaded files", len(debs))
	}
	if _, err := run(ctx, dir, "dpkg-deb", "-x", debs[0], k.root); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(k.root, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return fmt.Errorf("the package has %d kernels", len(images))
	}
	compressed, err := os.ReadFile(images[0])
	if err != nil {
		return err
	}
	image, err := extract(compressed)
	if err != nil {
		return fmt.Errorf("extracting the image from %s: %w", filepath.Base(images[0]), err)
	}
	if err := os.WriteFile(k.Image+".new", image, 0o644); err != nil {
		return err
	}
	return errors.Join(os.Remove(debs[0]), os.Rename(k.Image+".new", k.Image))
}

// Lock waits until this process holds the lock file at path, which it makes. unlock gives it back, and so does the end
// of the process.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing gives the lock back
}

func run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running %s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
