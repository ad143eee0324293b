// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Module is one kernel module to put into a guest.
type Module struct {
	Name      string // with underscores, as the kernel says it
	GuestPath string // absolute, in the guest: /lib/modules/VERSION/....ko
	HostPath  string // the same file here, decompressed
	Packed    string // the file of the package, compressed or not
}

// Modules returns the named modules and all that they need, dependencies first. Names that this kernel has built in
// are left out.
func (k *Kernel) Modules(ctx context.Context, names []string) ([]Module, error) {
	unlock, err := Lock(ctx, filepath.Join(filepath.Dir(k.modules), "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	base := filepath.Join(k.root, "lib/modules", k.Version)
	r := resolver{ctx: ctx, kernel: k, files: make(map[string]string), builtin: make(map[string]bool), state: make(map[string]int)}
	err = filepath.WalkDir(base, func(p string, _ fs.DirEntry, err error) error {
		if err == nil && isModule(p) {
			r.files[moduleName(p)] = p
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing modules: %w", err)
	}
	builtin, err := os.ReadFile(filepath.Join(base, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("listing built-in modules: %w", err)
	}
	for line := range strings.Lines(string(builtin)) {
		r.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	for _, name := range names {
		if err := r.add(moduleName(name)); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

type resolver struct {
	ctx     context.Context
	kernel  *Kernel
	files   map[string]string // name to compressed file
	builtin map[string]bool
	state   map[string]int // 1 while its dependencies are added, 2 when done
	order   []Module
}

func (r *resolver) add(name string) error {
	switch r.state[name] {
	case 1:
		return fmt.Errorf("module %s depends on itself", name)
	case 2:
		return nil
	}
	r.state[name] = 1
	file, ok := r.files[name]
	if !ok {
		if r.builtin[name] {
			r.state[name] = 2
			return nil
		}
		return fmt.Errorf("kernel %s has no module %s", r.kernel.Version, name)
	}
	plain, err := r.kernel.decompress(r.ctx, file)
	if err != nil {
		return fmt.Errorf("decompressing module %s: %w", name, err)
	}
	needs, soft, err := dependencies(plain)
	if err != nil {
		return fmt.Errorf("reading module %s: %w", name, err)
	}
	for _, need := range needs {
		if err := r.add(need); err != nil {
			return err
		}
	}
	for _, need := range soft { // wished for, so only what exists
		if r.files[need] != "" {
			if err := r.add(need); err != nil {
				return err
			}
		}
	}
	r.state[name] = 2
	guest := filepath.Join(filepath.Dir(strings.TrimPrefix(file, strings.TrimSuffix(r.kernel.root, "/"))), stem(file)+".ko")
	r.order = append(r.order, Module{Name: name, GuestPath: guest, HostPath: plain, Packed: file})
	return nil
}

// unpacker names the program for each of the compressions that kernels know.
func unpacker(file string) string {
	return map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[filepath.Ext(file)]
}

func isModule(file string) bool {
	return strings.HasSuffix(file, ".ko") || strings.Contains(filepath.Base(file), ".ko.") && unpacker(file) != ""
}

// decompress keeps plain modules in the cache: loading those is faster in an emulated guest.
func (k *Kernel) decompress(ctx context.Context, file string) (string, error) {
	if strings.HasSuffix(file, ".ko") {
		return file, nil
	}
	plain := filepath.Join(k.modules, moduleName(file)+".ko")
	if _, err := os.Stat(plain); err == nil {
		return plain, nil
	}
	if err := os.MkdirAll(k.modules, 0o755); err != nil {
		return "", err
	}
	b, err := run(ctx, "", unpacker(file), "-dc", file)
	if err != nil {
		return "", fmt.Errorf("%w %s", err, setupHint)
	}
	if err := os.WriteFile(plain+".new", b, 0o644); err != nil {
		return "", err
	}
	return plain, os.Rename(plain+".new", plain)
}

// dependencies reads what a module says in its .modinfo section: names it needs, and names it wishes to be loaded
// before it.
func dependencies(file string) (needs, soft []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, nil, errors.Join(errors.New("no .modinfo section"), f.Close())
	}
	info, err := section.Data()
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "depends":
			needs = append(needs, strings.FieldsFunc(value, func(c rune) bool { return c == ',' })...)
		case "softdep":
			if list, ok := strings.CutPrefix(value, "pre:"); ok {
				list, _, _ = strings.Cut(list, "post:")
				soft = append(soft, strings.Fields(list)...)
			}
		}
	}
	for _, list := range [][]string{needs, soft} {
		for i := range list {
			list[i] = moduleName(list[i])
		}
	}
	slices.Sort(soft)
	return needs, soft, nil
}

// moduleName is the kernel's name of the module in a file.
func moduleName(file string) string { return strings.ReplaceAll(stem(file), "-", "_") }

func stem(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return name
}
