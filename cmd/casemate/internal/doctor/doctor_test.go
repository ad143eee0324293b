// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine writes files below a root; a name that ends in a slash is a folder.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPlatforms(t *testing.T) {
	const snp, tdx, tpm, vendor = "dev/sev-guest", "dev/tdx_guest", "dev/tpmrm0", "sys/class/dmi/id/sys_vendor"
	for want, cases := range map[string][]map[string]string{
		QEMUSNP:  {{snp: "", vendor: "QEMU\n"}, {snp: ""}, {snp: "", vendor: "Somebody"}, {snp: "", tpm: "", vendor: "QEMU"}},
		QEMUTDX:  {{tdx: "", vendor: "QEMU\n"}, {tdx: ""}},
		Azure:    {{tpm: "", vendor: "Microsoft Corporation\n"}},
		GCPSNP:   {{snp: "", tpm: "", vendor: "Google\n"}},
		GCPTDX:   {{tdx: "", vendor: "Google\n"}},
		AWSSNP:   {{snp: "", vendor: "Amazon EC2\n"}, {snp: "", tpm: "", vendor: "Amazon EC2\n"}},
		NitroTPM: {{"dev/tpm0": "", vendor: "Amazon EC2\n"}},
		"":       {{}, {vendor: "QEMU"}, {tpm: "", vendor: "QEMU"}, {vendor: "Amazon EC2"}, {tpm: "", vendor: "Google"}, {vendor: "Microsoft Corporation"}},
	} {
		for _, files := range cases {
			if got := Inspect(machine(t, files)).Platform; got != want {
				t.Errorf("%v: got %q, want %q", files, got, want)
			}
		}
	}
}

const (
	verityRoot = "1 0 0:2 / / rw - rootfs rootfs rw\n22 1 252:0 / / ro,relatime shared:1 - erofs /dev/mapper/root ro\n30 22 0:20 / /run rw - tmpfs tmpfs rw\n"
	diskRoot   = "22 1 252:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
)

// sound is a machine on which nothing is to be found.
func sound() map[string]string {
	return map[string]string{
		"dev/tdx_guest": "", "sys/kernel/config/tsm/report/": "", "sys/firmware/acpi/tables/data/CCEL": "",
		"sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384": "", "proc/self/mountinfo": verityRoot,
		"sys/dev/block/252:0/dm/uuid": "CRYPT-VERITY-0-root\n", "proc/swaps": "Filename\tType\tSize\n",
		"sys/kernel/security/lockdown": "none integrity [confidentiality]\n",
	}
}

func find(m *Machine, what string) Finding {
	for _, f := range m.Findings {
		if f.What == what {
			return f
		}
	}
	return Finding{Text: "not looked at"}
}

// Each protection that is taken away is found, and is the only thing found.
func TestEachFaultIsFoundAlone(t *testing.T) {
	if m := Inspect(machine(t, sound())); !m.Healthy() {
		t.Fatalf("nothing is wrong, and found: %+v", m.Findings)
	}
	for what, tt := range map[string]struct {
		path, text string // text "-" removes
		want       string
	}{
		"report interface":     {"sys/kernel/config/tsm/report/", "-", "Linux 6.7"},
		"firmware's event log": {"sys/firmware/acpi/tables/data/CCEL", "-", "CCEL"},
		"run-time register":    {"sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384", "-", "6.16"},
		"root file system":     {"sys/dev/block/252:0/dm/uuid", "CRYPT-PLAIN-root", "without dm-verity"},
		"swap":                 {"proc/swaps", "Filename\tType\n/dev/vdb\tpartition\n", "/dev/vdb"},
		"kernel lockdown":      {"sys/kernel/security/lockdown", "none [integrity] confidentiality\n", "integrity"},
		"/run":                 {"proc/self/mountinfo", strings.Replace(verityRoot, "tmpfs tmpfs", "ext4 /dev/vdb", 1), "want a tmpfs"},
	} {
		files := sound()
		if tt.text == "-" {
			delete(files, tt.path)
		} else {
			files[tt.path] = tt.text
		}
		m := Inspect(machine(t, files))
		for _, f := range m.Findings {
			if f.OK == (f.What == what) {
				t.Errorf("%s: found %+v", what, f)
			}
		}
		if f := find(m, what); !strings.Contains(f.Text, tt.want) || m.Healthy() {
			t.Errorf("%s: %+v", what, f)
		}
	}
}

func TestRootFileSystems(t *testing.T) {
	for name, c := range map[string]struct {
		mounts, uuid string
		ok           bool
	}{
		"dm-verity":            {verityRoot, "CRYPT-VERITY-0-root", true},
		"the initrd":           {"1 0 0:2 / / rw - rootfs rootfs rw\n", "", true},
		"an ordinary disk":     {diskRoot, "", false},
		"an encrypted disk":    {verityRoot, "CRYPT-LUKS2-0-root", false},
		"a name like verity's": {verityRoot, "LVM-CRYPT-VERITY-", false},
		"no mounts to be read": {"", "", false},
		"lines of other forms": {"x\n - \n1 2 3 4 / - \n", "", false},
	} {
		m := Inspect(machine(t, map[string]string{"proc/self/mountinfo": c.mounts, "sys/dev/block/252:0/dm/uuid": c.uuid}))
		if f := find(m, "root file system"); f.OK != c.ok {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestConfigurationAndReport(t *testing.T) {
	healthy := func(change func(*Machine)) bool {
		m := Inspect(machine(t, sound()))
		change(m)
		return m.Healthy()
	}
	for name, c := range map[string]struct {
		change func(*Machine)
		want   bool
	}{
		"all well":       {func(m *Machine) { m.Config("c", nil, nil); m.Bound("tdx", []byte{1}, false, nil) }, true},
		"no file":        {func(m *Machine) { m.Config("c", fs.ErrNotExist, nil) }, false},
		"broken file":    {func(m *Machine) { m.Config("c", errors.New("line 3"), nil) }, false},
		"weakened":       {func(m *Machine) { m.Config("c", nil, []string{"kbs.plain_http"}) }, false},
		"no report":      {func(m *Machine) { m.Bound("tdx", nil, false, errors.New("silent")) }, false},
		"bound to zeros": {func(m *Machine) { m.Bound("tdx", make([]byte, 48), true, nil) }, false},
	} {
		if got := healthy(c.change); got != c.want {
			t.Errorf("%s: healthy is %v", name, got)
		}
	}
}

func TestPrint(t *testing.T) {
	files := sound()
	files["sys/class/dmi/id/sys_vendor"] = "\x1b[2JGoogle\u202e"
	m := Inspect(machine(t, files))
	var b strings.Builder
	if err := m.Print(&b); err != nil {
		t.Fatal(err)
	}
	p, ok := Find(m.Platform)
	if !ok || p.ID != QEMUTDX {
		t.Fatalf("got %+v", p)
	}
	if err := p.Print(&b); err != nil {
		t.Fatal(err)
	}
	if out := b.String(); strings.ContainsFunc(out, func(r rune) bool { return r < ' ' && r != '\n' || r > '~' }) || !strings.Contains(out, "MRCONFIGID, set at launch") {
		t.Errorf("got %q", out)
	}
	b.Reset()
	if err := PrintJSON(&b, m, p); err != nil || !json.Valid([]byte(b.String())) {
		t.Errorf("%v: %s", err, b.String())
	}
	if _, ok := Find("mainframe"); ok {
		t.Error("found a platform that is not there")
	}
}

// The page and the program say the same.
func TestTheCloudsPage(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/clouds.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range Platforms() {
		want := "## " + p.Title + "\n\n`casemate doctor " + p.ID + "`"
		if !p.Served {
			want += ". Not served yet"
		}
		want += ".\n\n| part | proved by | signed by |\n|---|---|---|\n"
		parts := ""
		for _, proof := range p.Proofs {
			want += "| " + proof.Part + " | " + proof.By + " | " + proof.Signer + " |\n"
			parts += proof.Part + " "
		}
		want += "\n" + p.Note + "\n"
		if !strings.Contains(string(page), want) {
			t.Errorf("docs/clouds.md does not have:\n%s", want)
		}
		if parts != "firmware kernel agent initdata " {
			t.Errorf("%s: parts are %s", p.ID, parts)
		}
	}
}
