// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ModuleList is where the image keeps its module list: one absolute path below /lib/modules a line, in loading
// order, dependencies first. Empty lines and lines that start with # are skipped. A leading "?" says that the
// module's device may be absent. The list and the modules are part of the measured image.
const ModuleList = "/etc/casemate/modules"

const moduleRoot = "/lib/modules/"

// module is one line of the list.
type module struct {
	path     string
	optional bool
}

func parseModuleList(text string) ([]module, error) {
	var list []module
	for i, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		var m module
		m.path, m.optional = strings.CutPrefix(line, "?")
		if !strings.HasPrefix(m.path, moduleRoot) || path.Clean(m.path) != m.path || strings.ContainsAny(m.path, " \t\r\x00") {
			return nil, fmt.Errorf("module list line %d: %q is no path below %s", i+1, m.path, moduleRoot)
		}
		if _, err := moduleFlags(m.path); err != nil {
			return nil, fmt.Errorf("module list line %d: %w", i+1, err)
		}
		list = append(list, m)
	}
	return list, nil
}

// moduleFlags returns the flags of finit_module(2) for a file: the kernel decompresses with the one method it was
// built for and refuses the others.
func moduleFlags(file string) (int, error) {
	switch path.Ext(file) {
	case ".ko":
		return 0, nil
	case ".xz", ".zst", ".gz":
		return unix.MODULE_INIT_COMPRESSED_FILE, nil
	}
	return 0, fmt.Errorf("%q is no kernel module", file)
}

// finitModule is the part of loading that needs a kernel.
type finitModule func(fd int, params string, flags int) error

// loadModules loads a list in order and returns the names of optional modules that found no device. A module that
// is there already, or built in, counts as loaded.
func loadModules(list []module, finit finitModule) (loaded int, absent []string, err error) {
	for _, m := range list {
		err := loadModule(m.path, finit)
		switch {
		case err == nil, errors.Is(err, unix.EEXIST):
			loaded++
		case m.optional && errors.Is(err, unix.ENODEV):
			absent = append(absent, moduleName(m.path))
		default:
			return loaded, absent, fmt.Errorf("loading module %s: %w", moduleName(m.path), err)
		}
	}
	return loaded, absent, nil
}

func loadModule(file string, finit finitModule) error {
	flags, err := moduleFlags(file)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	return errors.Join(finit(int(f.Fd()), "", flags), f.Close())
}

// moduleName is the name that the kernel gives the module of a file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readModuleList returns nil for an image without a list: its kernel has everything built in.
func readModuleList(file string) ([]module, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseModuleList(string(text))
}
