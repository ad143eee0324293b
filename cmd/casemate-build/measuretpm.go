// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/casemate-build/internal/measured"
	"github.com/casemate/casemate/rootfs/measure"
)

// Ways of starting a UKI.
const (
	bootDisk       = "disk"
	bootQEMUKernel = "qemu-kernel"
)

type measureTPM struct {
	measureOutput
	uki, boot, appendText, initData string
	banks                           []string
}

func newMeasureTPM(s streams) *cobra.Command {
	m := &measureTPM{measureOutput: measureOutput{streams: s}}
	c := &cobra.Command{
		Use:   "tpm --uki FILE",
		Short: "Compute the PCRs of a unified kernel image that OVMF boots",
		Long: `Compute PCR 4, 9, 11 and 12 of a TPM after OVMF has started a unified kernel image of
systemd-stub 252, as the kernel finds them, and PCR 8 of a guest that has recorded its
initdata there. What a program extends later is not in them.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return m.run() },
	}
	c.Flags().StringVar(&m.uki, "uki", "", "`FILE`: the unified kernel image")
	c.Flags().StringVar(&m.boot, "boot", bootDisk, "how it is started: "+bootDisk+", as the first boot option, or "+bootQEMUKernel+", as QEMU's -kernel")
	c.Flags().StringVar(&m.appendText, "append", "", "`TEXT` from outside in place of its own command line, which the stub takes where secure boot is off")
	c.Flags().StringVar(&m.initData, "initdata", "", "`FILE`: the initdata document, of algorithm sha256, for PCR 8")
	c.Flags().StringSliceVar(&m.banks, "bank", []string{"sha256", "sha384"}, "sha256 or sha384")
	m.flags(c, false)
	return c
}

func (m *measureTPM) run() error {
	if m.uki == "" {
		return usagef("--uki is missing")
	}
	if m.boot != bootDisk && m.boot != bootQEMUKernel {
		return usagef("--boot %q: want %s or %s", m.boot, bootDisk, bootQEMUKernel)
	}
	image, input, err := readArtifact("uki", m.uki, measure.MaxPESize)
	if err != nil {
		return err
	}
	uki, err := measure.ParseUKI(image)
	if err != nil {
		return err
	}
	r := measured.Result{Kind: measured.TPM, Inputs: append(ukiInputs(input, uki), measured.Setting("boot", m.boot))}
	if m.appendText != "" {
		r.Inputs = append(r.Inputs, measured.Setting("append", m.appendText))
	}
	boot := measure.TPMBoot{UKI: uki, QEMUKernel: m.boot == bootQEMUKernel, LoadOptions: m.appendText}
	for _, name := range m.banks {
		if err := m.bank(&r, boot, name); err != nil {
			return err
		}
	}
	if m.initData != "" {
		if err := m.pcr8(&r); err != nil {
			return err
		}
	}
	return m.print(r, "")
}

// ukiInputs are a UKI and its parts, so that a difference can be laid to one.
func ukiInputs(file measured.Input, uki *measure.UKI) []measured.Input {
	return []measured.Input{
		file, measured.Setting("uki stub", uki.Stub), measured.File("uki .linux", uki.Linux), measured.File("uki .osrel", uki.OSRelease),
		measured.File("uki .cmdline", uki.CommandLine), measured.File("uki .initrd", uki.Initrd),
	}
}

// ukiSections are the names of the parts that are sections.
func ukiSections() []string {
	return []string{"uki .linux", "uki .osrel", "uki .cmdline", "uki .initrd"}
}

// bank adds the registers of one bank.
func (m *measureTPM) bank(r *measured.Result, boot measure.TPMBoot, name string) error {
	h, ok := map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384}[name]
	if !ok {
		return usagef("--bank %q: want sha256 or sha384", name)
	}
	pcrs, err := boot.PCRs(h)
	if err != nil {
		return fmt.Errorf("computing PCRs: %w", err)
	}
	sections := ukiSections()
	line := []string{"uki .cmdline"}
	var options []string
	if m.appendText != "" {
		line, options = []string{"append"}, []string{"append"}
	}
	for _, v := range []struct {
		pcr  int
		sum  []byte
		from []string
	}{
		{4, pcrs.PCR4, append([]string{"uki", "uki stub", "boot"}, sections...)},
		{9, pcrs.PCR9, append(line, "uki .initrd")},
		{11, pcrs.PCR11, append([]string{"uki stub"}, sections...)},
		{12, pcrs.PCR12, options},
	} {
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
