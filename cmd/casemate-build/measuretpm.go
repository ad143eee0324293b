// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/internal/measured"
	"github.com/casemate/casemate/rootfs/measure"
)

// Ways of starting a UKI.
const (
	bootDisk       = "disk"
	bootQEMUKernel = "qemu-kernel"
)

type measureTPM struct {
	measureOutput
	measureBoot
	start, initData    string
	firmware, eventLog string
	machine            string
	banks              []string
}

func newMeasureTPM(s streams) *cobra.Command {
	m := &measureTPM{measureOutput: measureOutput{streams: s}}
	c := &cobra.Command{
		Use:   "tpm --uki FILE",
		Short: "Compute the PCRs of a kernel that OVMF boots",
		Long: `Compute PCR 4, 9, 11 and 12 of a TPM after OVMF has started a unified kernel image of
systemd-stub 252, or with --kernel a kernel that QEMU loads, as the kernel finds them,
and PCR 8 of a guest that has recorded its initdata there. What a program extends later
is not in them. With --firmware and --event-log also PCR 0, from the log of a boot on the
same kind of machine: its volume DXE must be the file's; the volume PEI is believed, since
the machine's memory and processors are in it when it is measured. With --machine it must
be the file's as well, with that machine in it, for firmware that is known here: that of
Debian 12, OVMF_CODE_4M.fd, on QEMU's q35.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return m.run() },
	}
	m.measureBoot.flags(c)
	c.Flags().StringVar(&m.start, "boot", "", "how a UKI is started: "+bootDisk+", as the first boot option, or "+bootQEMUKernel+", as QEMU's -kernel (default "+bootDisk+")")
	c.Flags().StringVar(&m.initData, "initdata", "", "`FILE`: the initdata document, of algorithm sha256, for PCR 8")
	c.Flags().StringVar(&m.firmware, "firmware", "", "`FILE`: OVMF, its code or code and variables, for PCR 0")
	c.Flags().StringVar(&m.eventLog, "event-log", "", "`FILE`: /sys/kernel/security/tpm0/binary_bios_measurements of a boot that you watched, for PCR 0")
	c.Flags().StringVar(&m.machine, "machine", "", "`MIB,CPUS` of the boot of that log, as 512,1")
	c.Flags().StringSliceVar(&m.banks, "bank", []string{"sha256", "sha384"}, "sha256 or sha384")
	m.measureOutput.flags(c)
	return c
}

func (m *measureTPM) run() error {
	if m.uki == "" && m.kernel == "" {
		return usagef("want --uki or --kernel")
	}
	if err := m.check(); err != nil {
		return err
	}
	if m.kernel != "" && m.start != "" {
		return usagef("--boot is for --uki")
	}
	if (m.firmware == "") != (m.eventLog == "") {
		return usagef("--firmware and --event-log go together")
	}
	if m.machine != "" && m.firmware == "" {
		return usagef("--machine is for --firmware")
	}
	m.start = cmp.Or(m.start, bootDisk)
	if m.start != bootDisk && m.start != bootQEMUKernel {
		return usagef("--boot %q: want %s or %s", m.start, bootDisk, bootQEMUKernel)
	}
	r := measured.Result{Kind: measured.TPM}
	boot, err := m.load(&r, m.start == bootDisk)
	if err != nil {
		return err
	}
	if m.uki != "" {
		r.Inputs = append(r.Inputs, measured.Setting("boot", m.start))
		boot.programs = append(boot.programs, "boot")
	}
	firmware, err := m.loadFirmware(&r)
	if err != nil {
		return err
	}
	for _, name := range m.banks {
		if err := m.bank(&r, boot, firmware, name); err != nil {
			return err
		}
	}
	if m.initData != "" {
		if err := m.pcr8(&r); err != nil {
			return err
		}
	}
	return m.print(r, pcrPart(r))
}

// pcrPart is the table of a registration. The firmware's register is the owner's to
// add where no log of it was given, and the register of the initdata is compared with the initdata itself.
func pcrPart(r measured.Result) string {
	var b strings.Builder
	if r.Debug() {
		b.WriteString("[tpm]\n" + debugLine(r) + "\n")
	}
	b.WriteString("[tpm.pcrs]\n")
	if !slices.ContainsFunc(r.Values, func(v measured.Value) bool { return v.Name == "PCR 0 sha256" }) {
		b.WriteString("# 0 = the firmware's register, from a boot that you watched\n")
	}
	for _, v := range r.Values {
		var index int
		if _, err := fmt.Sscanf(v.Name, "PCR %d sha256", &index); err == nil && index != evidence.TPMInitDataRegister {
			fmt.Fprintf(&b, "%d = [%q]\n", index, v.Hex)
		}
	}
	return b.String()
}

// bank adds the registers of one bank.
func (m *measureTPM) bank(r *measured.Result, boot *booted, firmware *loggedFirmware, name string) error {
	h, ok := map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384}[name]
	if !ok {
		return usagef("--bank %q: want sha256 or sha384", name)
	}
	if firmware != nil {
		sum, err := firmware.pcr0(h)
		if err != nil {
			return fmt.Errorf("computing PCR 0: %w", err)
		}
		r.Values = append(r.Values, measured.Value{Name: "PCR 0 " + name, Hex: hex.EncodeToString(sum), From: firmware.from})
	}
	pcrs, err := boot.pcrs(h)
	if err != nil {
		return fmt.Errorf("computing PCRs: %w", err)
	}
	for _, v := range []struct {
		pcr  int
		sum  []byte
		from []string
	}{{4, pcrs.PCR4, boot.programs}, {9, pcrs.PCR9, boot.linux}, {11, pcrs.PCR11, boot.sections}, {12, pcrs.PCR12, boot.options}} {
		r.Values = append(r.Values, measured.Value{Name: fmt.Sprintf("PCR %d %s", v.pcr, name), Hex: hex.EncodeToString(v.sum), From: v.from})
	}
	return nil
}

// pcr8 adds the register that a guest records its initdata in. The guest writes the
// SHA-256 bank alone.
func (m *measureTPM) pcr8(r *measured.Result) error {
	text, input, err := readArtifact("initdata", m.initData, initdata.MaxSize)
	if err != nil {
		return err
	}
	document, err := initdata.Parse(text)
	if err != nil {
		return fmt.Errorf("reading initdata: %w", err)
	}
	digest := document.Digest()
	if len(digest) != sha256.Size {
		return fmt.Errorf("reading initdata: digest of %d bytes; PCR 8 takes %s alone", len(digest), evidence.SHA256)
	}
	r.Inputs = append(r.Inputs, input)
	r.Values = append(r.Values, measured.Value{
		Name: "PCR 8 sha256", Hex: hex.EncodeToString(measure.InitDataPCR8([sha256.Size]byte(digest))), From: []string{"initdata"},
	})
	return nil
}
