// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/casemate/casemate/rootfs/cpio"
	"github.com/casemate/casemate/rootfs/kernel"
)

//go:embed modules.txt
var moduleNames string

// moduleList is where the first process looks for its list (package agent/guest); without it there is no vsock.
const moduleList = "/etc/casemate/modules"

// File is a file to put into an image.
type File struct {
	Path     string // absolute, in the guest
	HostPath string // its content, or
	Text     string // its content
	Perm     uint32
}

// WriteImage writes an initial RAM file system: init as /init, the given files, the modules of modules.txt with
// their list, and the mount points and nodes that the first process finds.
func WriteImage(ctx context.Context, path string, k *kernel.Kernel, init string, files []File) error {
	modules, list, err := imageModules(ctx, k)
	if err != nil {
		return err
	}
	all := append([]File{{Path: "/init", HostPath: init, Perm: 0o755}}, files...)
	for _, m := range modules {
		all = append(all, File{Path: m.GuestPath, HostPath: m.HostPath, Perm: 0o644})
	}
	if !named(files, moduleList) {
		all = append(all, File{Path: moduleList, Text: list, Perm: 0o644})
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := cpio.NewWriter(f)
	err = errors.Join(
		w.CharDevice("/dev/console", 0o600, 5, 1), // the kernel opens it for the first process
		w.CharDevice("/dev/null", 0o666, 1, 3),    // and the Go runtime this one, if it did not
	)
	for _, file := range all {
		if err == nil {
			err = addFile(w, file)
		}
	}
	return errors.Join(err, w.Close(), f.Close())
}

func named(files []File, path string) bool {
	for _, f := range files {
		if f.Path == path {
			return true
		}
	}
	return false
}

func addFile(w *cpio.Writer, file File) error {
	if file.HostPath == "" {
		return w.File(file.Path, file.Perm, int64(len(file.Text)), strings.NewReader(file.Text))
	}
	f, err := os.Open(file.HostPath)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = w.File(file.Path, file.Perm, info.Size(), f)
	}
	return errors.Join(err, f.Close())
}

// ModuleList is the list that WriteImage writes, a path in the guest a line, for an
// image that loads more: it brings its own at /etc/casemate/modules.
func ModuleList(ctx context.Context, k *kernel.Kernel) (string, error) {
	_, list, err := imageModules(ctx, k)
	return list, err
}

// imageModules resolves modules.txt and returns the list in the form that package guest reads.
func imageModules(ctx context.Context, k *kernel.Kernel) ([]kernel.Module, string, error) {
	var names []string
	optional, packed := make(map[string]bool), make(map[string]bool)
	for line := range strings.Lines(moduleNames) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, maybe := strings.CutPrefix(line, "?")
		name, keep := strings.CutSuffix(name, ".ko.xz")
		names, optional[name], packed[name] = append(names, name), maybe, keep
	}
	modules, err := k.Modules(ctx, names)
	if err != nil {
		return nil, "", fmt.Errorf("choosing modules: %w", err)
	}
	var list strings.Builder
	for i, m := range modules {
		if packed[m.Name] {
			modules[i].GuestPath, modules[i].HostPath = m.GuestPath+".xz", m.Packed
		}
		if optional[m.Name] {
			list.WriteString("?")
		}
		list.WriteString(modules[i].GuestPath + "\n")
	}
	return modules, list.String(), nil
}
