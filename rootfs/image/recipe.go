// SPDX-License-Identifier: Apache-2.0

package image

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

const (
	// Program is where casemate lies: kata's runtime and its osbuilder know the name.
	Program = "/usr/bin/kata-agent"
	// ModuleList is where the first process reads what to load (package guest).
	ModuleList = "/etc/casemate/modules"
	// RootPin is where the measured boot finds the pin of the root that it must
	// mount, one line in the form of verity.Pin.Text.
	RootPin = "/etc/casemate/root"

	initProgram = "/init"
)

//go:embed recipe.toml
var defaultRecipe string

// Recipe is what goes into a guest besides the program.
type Recipe struct {
	Boot struct {
		Modules []string `toml:"modules"` // names; "?" before one: its device may be absent
	} `toml:"boot"`
	Guest struct {
		Modules     []string          `toml:"modules"`
		Directories []string          `toml:"directories"` // mode 0755
		Links       map[string]string `toml:"links"`       // name to target
		Files       map[string]string `toml:"files"`       // name to text; mode 0644
	} `toml:"guest"`
}

// DefaultRecipe is the recipe of a guest for Debian's kernel.
func DefaultRecipe() (Recipe, error) { return ParseRecipe(defaultRecipe) }

// ParseRecipe reads a recipe in the form of recipe.toml. Unknown keys are errors.
func ParseRecipe(text string) (Recipe, error) {
	var r Recipe
	meta, err := toml.Decode(text, &r)
	if err != nil {
		return Recipe{}, fmt.Errorf("reading the recipe: %w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return Recipe{}, fmt.Errorf("reading the recipe: unknown key %s", unknown[0])
	}
	for _, table := range []string{"links", "files"} { // the decoder passes over what is no table
		if kind := meta.Type("guest", table); kind != "" && kind != "Hash" {
			return Recipe{}, fmt.Errorf("reading the recipe: guest.%s: want a table, got %s", table, kind)
		}
	}
	return r, nil
}

// ModuleNames splits a list of the recipe: the names, and which of them are
// optional.
func ModuleNames(list []string) (names []string, optional map[string]bool) {
	optional = make(map[string]bool)
	for _, name := range list {
		name, maybe := strings.CutPrefix(name, "?")
		names = append(names, name)
		optional[name] = maybe
	}
	return names, optional
}

// Module is a kernel module, in the order of loading.
type Module struct {
	GuestPath string // absolute, below /lib/modules
	HostPath  string
	Optional  bool // its device may be absent
}

// Inputs are what a recipe cannot hold.
type Inputs struct {
	Program string   // host path of the casemate binary, statically linked
	Modules []Module // dependencies first; may be empty for a kernel that has everything built in
	Debug   bool     // the guest is one for debugging: Program is built so, and
	Shell   string   // is the host path of a static busybox for it
	Extra   []Entry  // casemate.toml, certificates of registries
}

// GuestTree is the whole guest, as a root file system or as kata's initrd.
func (r Recipe) GuestTree(in Inputs) (*Tree, error) {
	t, err := in.start()
	if err == nil && in.Debug {
		err = t.addShell(in.Shell)
	}
	if err != nil {
		return nil, err
	}
	list := nodes()
	list = append(list,
		Entry{Path: tempDir, Kind: Directory, Perm: tempDirPerm},
		Entry{Path: Program, Kind: File, Perm: programPerm, HostPath: in.Program})
	for _, name := range r.Guest.Directories {
		list = append(list, Entry{Path: name, Kind: Directory, Perm: dirPerm})
	}
	replaced := make(map[string]bool)
	for _, e := range in.Extra {
		replaced[e.Path] = true
	}
	for name, text := range r.Guest.Files {
		if !replaced[name] {
			list = append(list, Entry{Path: name, Kind: File, Perm: filePerm, Text: text})
		}
	}
	for name, target := range r.Guest.Links {
		list = append(list, Entry{Path: name, Kind: Link, Target: target})
	}
	return t, t.Add(slices.Concat(list, in.Extra, modules(in.Modules))...)
}

// BootTree is the measured boot: just enough to find the root that pin names, a
// verity.Pin's text.
func (r Recipe) BootTree(in Inputs, pin string) (*Tree, error) {
	t, err := in.start()
	if err != nil {
		return nil, err
	}
	list := append(nodes(),
		Entry{Path: "/proc", Kind: Directory, Perm: dirPerm},
		Entry{Path: initProgram, Kind: File, Perm: programPerm, HostPath: in.Program},
		Entry{Path: RootPin, Kind: File, Perm: filePerm, Text: strings.TrimSpace(pin) + "\n"})
	return t, t.Add(slices.Concat(list, in.Extra, modules(in.Modules))...)
}

// start checks the program and begins a tree, of a debug guest with its mark.
func (in Inputs) start() (*Tree, error) {
	if err := checkProgram(in.Program, in.Debug); err != nil {
		return nil, err
	}
	t := NewTree()
	if !in.Debug {
		return t, nil
	}
	return t, t.addDebug()
}

// nodes are what the kernel and the Go runtime open before anything is mounted.
func nodes() []Entry {
	return []Entry{
		{Path: "/dev/console", Kind: CharDevice, Perm: 0o600, Major: 5, Minor: 1},
		{Path: "/dev/null", Kind: CharDevice, Perm: 0o666, Major: 1, Minor: 3},
	}
}

func modules(list []Module) []Entry {
	var entries []Entry
	var text strings.Builder
	for _, m := range list {
		entries = append(entries, Entry{Path: m.GuestPath, Kind: File, Perm: filePerm, HostPath: m.HostPath})
		if m.Optional {
			text.WriteString("?")
		}
		text.WriteString(m.GuestPath + "\n")
	}
	if len(list) == 0 {
		return nil
	}
	return append(entries, Entry{Path: ModuleList, Kind: File, Perm: filePerm, Text: text.String()})
}
