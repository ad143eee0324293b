// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"path"
	"testing"

	"github.com/BurntSushi/toml"
)

// TestExtensionTree: each name in the manifest and in the pause bundle is there, links
// stay inside, and there is one program.
func TestExtensionTree(t *testing.T) {
	tree, err := ExtensionTree(staticProgram(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	programs := 0
	for _, e := range tree.Entries() {
		if e.Kind == File && e.HostPath != "" {
			programs++
		}
		if e.Kind != Link {
			continue
		}
		if target, ok := tree.entries[path.Join(path.Dir(e.Path), e.Target)]; !ok || target.Kind != File || path.IsAbs(e.Target) {
			t.Errorf("%s leads to %s", e.Path, e.Target)
		}
	}
	if programs != 1 {
		t.Errorf("%d programs", programs)
	}
	var m struct {
		Paths   map[string]string
		Process []struct {
			Path     string
			Variants map[string]struct{ Path string }
		}
	}
	if _, err := toml.Decode(extensionComponents, &m); err != nil {
		t.Fatal(err)
	}
	names := []string{m.Paths["ocicrypt-config"], m.Paths["pause-bundle"]}
	for _, p := range m.Process {
		if p.Path != "" {
			names = append(names, p.Path)
		}
		for _, v := range p.Variants {
			names = append(names, v.Path)
		}
	}
	for _, name := range names {
		if _, ok := tree.entries["/"+name]; !ok || name == "" {
			t.Errorf("the manifest names %q", name)
		}
	}
	if len(names) != 5 {
		t.Errorf("%d names", len(names))
	}
	if !json.Valid([]byte(pauseConfig)) || !json.Valid([]byte(ocicryptConfig)) {
		t.Error("no JSON")
	}
	if _, err := ExtensionTree(goProgram(t, "debug")); err == nil {
		t.Error("a debug program is taken")
	}
}
