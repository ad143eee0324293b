// SPDX-License-Identifier: Apache-2.0

package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// cFiles are the files of ours with C in them, which this test does not read: of these start_cgo.go executes the first
// process once more, before the Go runtime starts, and the others execute nothing.
var cFiles = []string{"agent/container/reexec/reexec.go", "agent/container/shim_musl.go", "agent/guest/start_cgo.go"}

// starters are the functions that start a program or become one, by the package that has them.
var starters = map[string][]string{
	"os/exec":               {"Command", "CommandContext", "Cmd"},
	"os":                    {"StartProcess"},
	"syscall":               {"ForkExec", "StartProcess", "Exec", "SYS_EXECVE", "SYS_EXECVEAT"},
	"golang.org/x/sys/unix": {"Exec", "SYS_EXECVE", "SYS_EXECVEAT"},
}

// mayStart are the places in the guest's program that name one of them. Containers are started by libcontainer.
var mayStart = map[string]string{
	"agent/guest/start.go: unix.Exec":        "the first process becomes itself once more, with an empty environment",
	"agent/guest/measuredroot.go: unix.Exec": "and then casemate of the measured root",
	"agent/container/reaper.go: exec.Cmd":    "test programs of the build tag vmtest; it keeps the reaper from their exit status",
}

// mayLink are packages of others in the guest's program that import os/exec.
var mayLink = map[string]string{
	"github.com/opencontainers/runc/libcontainer":         "a container's first process, which is casemate itself until it executes the container's program",
	"github.com/opencontainers/runc/libcontainer/configs": "command hooks: specs with hooks are refused (agent/container, TestRootCreateRefuses in agent/pod)",
	"github.com/opencontainers/cgroups/systemd":           "asks systemd for its version where systemd is the cgroup manager, which it never is here",
	"github.com/godbus/dbus/v5":                           "starts a session bus for systemd's client: see above",
	"github.com/docker/cli/cli/config/credentials":        "credential helpers of a docker config: registry credentials come from auth.json's bytes alone",
	"github.com/docker/docker-credential-helpers/client":  "see above",
}

// TestNoProgramsAreStarted: casemate starts containers and no cryptsetup, veritysetup, mkfs, dd or anything else. A new
// place that starts a program fails this test until it has a line and a reason above; and a line without a place fails
// it too.
func TestNoProgramsAreStarted(t *testing.T) {
	places, linked := map[string]bool{}, map[string]bool{}
	for _, p := range list(t, "-deps", "./cmd/casemate") {
		ours := strings.HasPrefix(p.ImportPath, module)
		if !ours {
			if p.Module != nil && slices.Contains(p.Imports, "os/exec") {
				linked[p.ImportPath] = true
			}
			continue
		}
		for _, name := range p.CgoFiles {
			if file := strings.TrimPrefix(p.ImportPath, module) + "/" + name; !slices.Contains(cFiles, file) {
				t.Errorf("%s has C in it: read it", file)
			}
		}
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
			for _, use := range started(t, filepath.Join(p.Dir, name)) {
				places[strings.TrimPrefix(p.ImportPath, module)+"/"+name+": "+use] = true
			}
		}
	}
	for _, c := range []struct {
		found  map[string]bool
		listed map[string]string
		what   string
	}{{places, mayStart, "starts a program"}, {linked, mayLink, "imports os/exec"}} {
		for name := range c.found {
			if c.listed[name] == "" {
				t.Errorf("%s %s", name, c.what)
			}
		}
		for name := range c.listed {
			if !c.found[name] {
				t.Errorf("%s no longer %s: its line can go", name, c.what)
			}
		}
	}
}

// started lists what a file names of the starters, once each.
func started(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{} // of the packages in this file
	for _, spec := range parsed.Imports {
		path := strings.Trim(spec.Path.Value, `"`)
		functions, ok := starters[path]
		if !ok {
			continue
		}
		name := path[strings.LastIndex(path, "/")+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			t.Errorf("%s imports %s without its name", file, path)
		}
		names[name] = functions
	}
	var found []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := selector.X.(*ast.Ident); ok && slices.Contains(names[x.Name], selector.Sel.Name) {
			if use := x.Name + "." + selector.Sel.Name; !slices.Contains(found, use) {
				found = append(found, use)
			}
		}
		return true
	})
	return found
}
