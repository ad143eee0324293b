// SPDX-License-Identifier: Apache-2.0

package cwdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ConfigName is the file in the encrypted root that holds the image's config, as libkrun's init looks for it.
const ConfigName = ".krun_config.json"

const (
	blockSize = 4096
	// minSize is the least of a file system, in bytes, as buildah has it.
	minSize = 10 << 20
	// inodeSize is mke2fs's, in bytes.
	inodeSize = 256
	maxConfig = 1 << 20
)

// checkConfig reads the image's config and wants the member that says how the image is run.
func checkConfig(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var members map[string]jsontext.Value
	switch err := json.Unmarshal(raw, &members); {
	case len(raw) > maxConfig:
		return nil, fmt.Errorf("reading image config %s: %d bytes, want at most %d", path, len(raw), maxConfig)
	case err != nil:
		return nil, fmt.Errorf("reading image config %s: %w", path, err)
	case members["config"].Kind() != '{':
		return nil, fmt.Errorf("reading image config %s: want a member config, as the image config of OCI has it", path)
	}
	return raw, nil
}

// room is what a tree needs: bytes in whole blocks, and entries.
func room(root string) (size int64, entries int64, err error) {
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		entries++
		size += inodeSize + blockSize // a directory's block, or a file's extents
		if info.Mode().IsRegular() {
			size += (info.Size() + blockSize - 1) / blockSize * blockSize
		}
		return nil
	})
	return size, entries, err
}

// config returns the image's config, and whether it comes from outside of the directory.
func (o Options) config() (raw []byte, added bool, err error) {
	inside := filepath.Join(o.Root, ConfigName)
	if o.ImageConfig == "" {
		raw, err = checkConfig(inside)
		return raw, false, err
	}
	if _, err := os.Lstat(inside); !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("%s is there, and another config was given: %w", inside, errors.Join(err, fs.ErrExist))
	}
	raw, err = checkConfig(o.ImageConfig)
	return raw, true, err
}

// makeExt4 writes an ext4 with the tree of o.Root and the config to a new file and returns its size.
func makeExt4(ctx context.Context, o Options, image string) (int64, error) {
	raw, added, err := o.config()
	if err != nil {
		return 0, err
	}
	size, entries, err := room(o.Root)
	if err != nil {
		return 0, fmt.Errorf("measuring %s: %w", o.Root, err)
	}
	size += size*int64(o.Slop)/100 + int64(len(raw))
	size = (max(size, minSize) + blockSize - 1) / blockSize * blockSize
	args := []string{"-q", "-F", "-b", strconv.Itoa(blockSize), "-m", "0", "-N", strconv.FormatInt(entries*5/4+64, 10)}
	args = append(args, "-d", o.Root, image, strconv.FormatInt(size/1024, 10)+"K")
	if err := tool(ctx, "mkfs.ext4", args...); err != nil {
		return 0, err
	}
	if added {
		if err := addConfig(ctx, image, raw); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// addConfig puts the config into the image; debugfs ends well whatever happened, so it is read again. Its commands know no
// quoting of every name: the names here are our own, in the directory that it works in.
func addConfig(ctx context.Context, image string, raw []byte) error {
	const script, config = "commands", "config"
	dir := filepath.Dir(image)
	text := fmt.Sprintf("write %s %s\nset_inode_field %[2]s mode 0100600\nset_inode_field %[2]s uid 0\nset_inode_field %[2]s gid 0\n", config, ConfigName)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, config), raw, 0o600), os.WriteFile(filepath.Join(dir, script), []byte(text), 0o600)); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, "debugfs", "-w", "-f", script, filepath.Base(image)) //nolint:gosec // our own files
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("debugfs (of e2fsprogs): %w: %s", err, bytes.TrimSpace(out[:min(len(out), 1000)]))
	}
	back, err := exec.CommandContext(ctx, "debugfs", "-R", "cat /"+ConfigName, image).Output() //nolint:gosec // our own file
	if err == nil && !bytes.Equal(back, raw) {
		err = fmt.Errorf("%d bytes of %d came back: is the file system too small?", len(back), len(raw))
	}
	if err != nil {
		return fmt.Errorf("writing %s into the file system: %w", ConfigName, err)
	}
	return nil
}

func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput() //nolint:gosec // fixed programs
	if err != nil {
		return fmt.Errorf("%s (of e2fsprogs): %w: %s", name, err, bytes.TrimSpace(out[:min(len(out), 1000)]))
	}
	return nil
}
