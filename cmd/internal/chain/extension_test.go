// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

// extension builds a coco extension, has veritysetup check it by the printed parameters,
// and unpacks its file system with erofs-utils.
func (w *world) extension(t *testing.T) string {
	t.Helper()
	out := w.path("extension")
	w.must(t, "casemate-build", "rootfs", "extension", "--casemate", program("casemate-testsnp"), "-o", out)
	text, err := os.ReadFile(filepath.Join(out, "root_hash_coco-extension.txt"))
	if err != nil {
		t.Fatal(err)
	}
	params := map[string]string{}
	for _, pair := range strings.Split(strings.TrimSpace(string(text)), ",") {
		name, value, _ := strings.Cut(pair, "=")
		params[name] = value
	}
	data, tree := filepath.Join(out, "coco-extension.erofs"), filepath.Join(out, "coco-extension.verity")
	if _, err := fixture.Run(t.Context(), "veritysetup", "verify", "--no-superblock", "--salt", params["salt"], "--data-blocks", params["data_blocks"],
		"--data-block-size", params["data_block_size"], "--hash-block-size", params["hash_block_size"], data, tree, params["root_hash"]); err != nil {
		t.Fatal(err)
	}
	root := w.path("mounted")
	if _, err := fixture.Run(t.Context(), "fsck.erofs", "--extract="+root, data); err != nil {
		t.Fatal(err)
	}
	return root
}

// manifest is what kata-agent reads of components.toml.
type manifest struct {
	SchemaVersion int               `toml:"schema_version"`
	Paths         map[string]string `toml:"paths"`
	Process       []struct {
		ID       string   `toml:"id"`
		Level    int      `toml:"level"`
		Path     string   `toml:"path"`
		Select   string   `toml:"select"`
		Args     []string `toml:"args"`
		Optional []struct {
			When string   `toml:"when"`
			Args []string `toml:"args"`
		} `toml:"optional_args"`
		Config   string `toml:"config"`
		Socket   string `toml:"wait_socket"`
		Timeout  string `toml:"timeout_secs"`
		Variants map[string]struct {
			Path string `toml:"path"`
		} `toml:"variants"`
	} `toml:"process"`
}

// launchPlan does with the manifest what kata-agent does (composable VM images, "Agent-side"):
// levels in order, variables from its own context and no others, paths below the root,
// the default variant. The result are lines of a shell with the root in $2.
func launchPlan(t *testing.T, root string) string {
	t.Helper()
	const run = "/run/confidential-containers/"
	variables := map[string]string{
		"aa_attestation_uri": "unix://" + run + "attestation-agent/attestation-agent.sock", "aa_attestation_socket": run + "attestation-agent/attestation-agent.sock",
		"aa_config_path": "", "cdh_config_path": "", "cdh_socket": run + "cdh.sock", "ocicrypt_config_path": root + "/etc/ocicrypt_config.json",
		"rest_api_features": "all", "launch_process_timeout": "6", "initdata_toml_path": run + "initdata/initdata.toml", "attester_variant": "", "extension_root": root,
	}
	expand := func(text string) string {
		return os.Expand(text, func(name string) string {
			value, ok := variables[name]
			if !ok {
				t.Errorf("kata-agent has no variable %q", name)
			}
			return value
		})
	}
	var m manifest
	meta, err := toml.DecodeFile(filepath.Join(root, "etc/kata-extensions/components.toml"), &m)
	if err != nil || m.SchemaVersion != 1 || len(meta.Undecoded()) > 0 {
		t.Fatalf("schema %d, unknown %v, %v", m.SchemaVersion, meta.Undecoded(), err)
	}
	for _, name := range []string{"ocicrypt-config", "pause-bundle"} {
		if _, err := os.Stat(filepath.Join(root, m.Paths[name])); err != nil || m.Paths[name] == "" {
			t.Errorf("path %s: %q, %v", name, m.Paths[name], err)
		}
	}
	var lines string
	for i, p := range m.Process {
		if p.Level != i+1 || expand(p.Config) != "" || expand(p.Timeout) == "" {
			t.Errorf("process %+v", p)
		}
		_ = expand(p.Socket)
		path := p.Path
		if len(p.Variants) > 0 {
			if expand(p.Select) != "" {
				t.Errorf("%s selects %q", p.ID, p.Select)
			}
			path = p.Variants["default"].Path
		}
		line := `"$2/` + path + `"`
		for _, o := range p.Optional {
			if variables[o.When] != "" {
				p.Args = append(p.Args, o.Args...)
			}
		}
		for _, a := range p.Args {
			line += " " + expand(a)
		}
		if p.ID == "api-server-rest" {
			line += ` --bind "$3"`
		}
		lines += line + " &\n"
	}
	if strings.Count(lines, "\n") != 3 {
		t.Errorf("the plan is %s", lines)
	}
	return lines
}

// TestExtensionPause runs the pause bundle with runc: copied together as kata-agent does
// it, where its link leads to the program.
func TestExtensionPause(t *testing.T) {
	w := newWorld(t)
	root := w.extension(t)
	bundle := w.path("bundle")
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.json", "rootfs/pause"} {
		text, err := os.ReadFile(filepath.Join(root, "pause_bundle", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bundle, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	state := w.path("runc")
	runc := func(args ...string) ([]byte, error) {
		return exec.Command("runc", append([]string{"--root", state}, args...)...).CombinedOutput()
	}
	run := exec.Command("runc", "--root", state, "run", "--bundle", bundle, "casemate-pause-test")
	var out strings.Builder
	run.Stdout, run.Stderr = &out, &out
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = runc("delete", "--force", "casemate-pause-test") }()
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("it did not pause: %v: %s", err, &out)
	case <-time.After(2 * time.Second):
	}
	if text, err := runc("kill", "casemate-pause-test", "TERM"); err != nil {
		t.Fatalf("kill: %v: %s", err, text)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v: %s", err, &out)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}
