// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxText bounds a file of the kernel that is read here.
const maxText = 1 << 20

// Finding is one thing that was looked at.
type Finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// Machine is what can be seen of the one that this runs on.
type Machine struct {
	// Vendor is what DMI says, which the host wrote.
	Vendor string `json:"vendor"`
	// Platform is an identity of Platforms, "" for none of them.
	Platform string    `json:"platform"`
	Findings []Finding `json:"findings"`

	root string
}

// Inspect looks at the machine whose file system is at root, "/" for this one.
func Inspect(root string) *Machine {
	m := &Machine{root: root}
	m.Vendor = strings.TrimSpace(m.text("sys/class/dmi/id/sys_vendor"))
	snp, tdx := m.there("dev/sev-guest"), m.there("dev/tdx_guest")
	tpm := m.there("dev/tpmrm0") || m.there("dev/tpm0")
	m.Platform = platformOf(m.Vendor, snp, tdx, tpm)
	m.reports(snp, tdx)
	m.rootFS()
	m.swap()
	m.memory()
	m.lockdown()
	return m
}

// platformOf goes by the devices for the TEE and by DMI for whose machine it is. A
// vendor that is not known has nothing special: the rows of plain QEMU hold.
func platformOf(vendor string, snp, tdx, tpm bool) string {
	of := func(whenSNP, whenTDX, otherwise string) string {
		switch {
		case snp:
			return whenSNP
		case tdx:
			return whenTDX
		}
		return otherwise
	}
	switch vendor {
	case "Microsoft Corporation":
		if tpm {
			return Azure
		}
		return of(QEMUSNP, QEMUTDX, "")
	case "Google":
		return of(GCPSNP, GCPTDX, "")
	case "Amazon EC2":
		if tpm {
			return of(AWSSNP, "", NitroTPM)
		}
		return of(AWSSNP, "", "")
	}
	return of(QEMUSNP, QEMUTDX, "")
}

func (m *Machine) add(what string, ok bool, format string, args ...any) {
	m.Findings = append(m.Findings, Finding{what, ok, fmt.Sprintf(format, args...)})
}

func (m *Machine) there(path string) bool {
	_, err := os.Stat(filepath.Join(m.root, path))
	return err == nil
}

// text returns a file of the kernel, "" when there is none.
func (m *Machine) text(path string) string {
	file, err := os.Open(filepath.Join(m.root, path))
	if err != nil {
		return ""
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxText))
	if err != nil {
		return ""
	}
	return string(raw)
}

func (m *Machine) reports(snp, tdx bool) {
	const tsm = "sys/kernel/config/tsm/report"
	switch {
	case !snp && !tdx:
		m.add("report device", false, "neither /dev/sev-guest nor /dev/tdx_guest: no hardware of these kinds protects this machine, or a paravisor hides it")
	case snp && !m.there(tsm):
		m.add("report interface", true, "/dev/sev-guest alone, as before Linux 6.7 or with configfs not mounted: reports are the same, and the host's certificates come along")
	case !m.there(tsm):
		m.add("report interface", false, "no /%s: want Linux 6.7 or later, with configfs mounted", tsm)
	default:
		m.add("report interface", true, "/%s", tsm)
	}
	if !tdx {
		return
	}
	m.add("firmware's event log", m.there("sys/firmware/acpi/tables/data/CCEL"), "CCEL table: without it RTMR values cannot be explained")
	m.add("run-time register", m.there("sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384"), "RTMR3 in sysfs, Linux 6.16 or later: without it the event log is unbound")
}

// rootFS finds out whether something stands for the bytes of the root file system.
func (m *Machine) rootFS() {
	const what = "root file system"
	kind, device := m.mountOf("/")
	switch {
	case kind == "rootfs" || kind == "tmpfs" || kind == "ramfs":
		m.add(what, true, "%s: the initrd's files, as measured as the initrd is", kind)
		return
	case device == "":
		m.add(what, false, "its device cannot be found in /proc/self/mountinfo")
		return
	}
	uuid := strings.TrimSpace(m.text("sys/dev/block/" + device + "/dm/uuid"))
	if strings.HasPrefix(uuid, "CRYPT-VERITY-") {
		m.add(what, true, "%s on dm-verity: as measured as its root hash is", kind)
		return
	}
	m.add(what, false, "%s on device %s without dm-verity: who can change it can change casemate, and no evidence shows it", kind, device)
}

// mountOf returns file system type and device number of the topmost mount at point.
func (m *Machine) mountOf(point string) (kind, device string) {
	for line := range strings.Lines(m.text("proc/self/mountinfo")) {
		left, right, ok := strings.Cut(line, " - ")
		f, r := strings.Fields(left), strings.Fields(right)
		if ok && len(f) >= 5 && len(r) >= 1 && f[4] == point {
			kind, device = r[0], f[2]
		}
	}
	return kind, device
}

func (m *Machine) swap() {
	var devices []string
	for i, line := range strings.Split(strings.TrimSpace(m.text("proc/swaps")), "\n") {
		if f := strings.Fields(line); i > 0 && len(f) > 0 {
			devices = append(devices, f[0])
		}
	}
	if len(devices) > 0 {
		m.add("swap", false, "%s: memory, keys among it, goes to a device that may be the host's", strings.Join(devices, " "))
		return
	}
	m.add("swap", true, "none")
}

func (m *Machine) memory() {
	kind, _ := m.mountOf("/run")
	if kind == "tmpfs" || kind == "ramfs" {
		m.add("/run", true, "%s: what casemate keeps there stays in memory", kind)
		return
	}
	if kind == "" {
		kind = "part of the root file system"
	}
	m.add("/run", false, "%s, want a tmpfs: layers and the event log would be on a disk", kind)
}

func (m *Machine) lockdown() {
	text := strings.TrimSpace(m.text("sys/kernel/security/lockdown"))
	_, state, _ := strings.Cut(text, "[")
	state, _, _ = strings.Cut(state, "]")
	m.add("kernel lockdown", state == "confidentiality", "%s, want confidentiality: else root reads kernel memory", orNone(state))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Config adds what the measured configuration is worth: err is why it cannot be read,
// weaknesses what it switches off.
func (m *Machine) Config(path string, err error, weaknesses []string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		m.add("configuration", false, "no %s", path)
	case err != nil:
		m.add("configuration", false, "%v", err)
	default:
		m.add("configuration", true, "%s", path)
	}
	for _, w := range weaknesses {
		m.add("weakened", false, "%s", w)
	}
}

// Bound adds what a fresh report says of initdata: err is why there is none, zero says
// that the launch bound nothing.
func (m *Machine) Bound(tee string, value []byte, zero bool, err error) {
	switch {
	case err != nil:
		m.add("fresh report", false, "%v", err)
	case zero:
		m.add("fresh report", false, "%s, and the launch bound no initdata: keybroker releases nothing to it", tee)
	default:
		m.add("fresh report", true, "%s, bound to initdata of digest %x", tee, value)
	}
}

// Healthy reports whether nothing was found wrong.
func (m *Machine) Healthy() bool {
	for _, f := range m.Findings {
		if !f.OK {
			return false
		}
	}
	return m.Platform != ""
}
