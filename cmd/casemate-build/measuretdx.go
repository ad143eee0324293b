// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/measured"
	"github.com/casemate/casemate/rootfs/measure"
)

type measureTDX struct {
	measureOutput
	measureBoot
	firmware, order, eventLog string
}

func newMeasureTDX(s streams) *cobra.Command {
	m := &measureTDX{measureOutput: measureOutput{streams: s}}
	c := &cobra.Command{
		Use:   "tdx --firmware FILE [--uki FILE] [--event-log FILE]",
		Short: "Compute MRTD and RTMRs of TDX under QEMU with OVMF",
		Long: `Compute the MRTD of TDs that are started with a firmware image; with --uki also RTMR 1
and 2 of a unified kernel image that is given to QEMU as -kernel, with --kernel those of
a kernel that QEMU loads; with --event-log
RTMR 0 from the log of a guest that you trust, since it depends on the host's version
of QEMU, on memory size and on ACPI tables. None of it has been compared with silicon.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return m.run() },
	}
	c.Flags().StringVar(&m.firmware, "firmware", "", "`FILE` given to QEMU as -bios: variables and code in one, OVMF built for TDX")
	c.Flags().StringVar(&m.order, "page-order", "page", "when the VMM measures: page, each page after adding it, as Linux does, or section, after adding the section's pages")
	m.measureBoot.flags(c)
	c.Flags().StringVar(&m.eventLog, "event-log", "", "`FILE`: a guest's /sys/firmware/acpi/tables/data/CCEL")
	m.measureOutput.flags(c)
	return c
}

func (m *measureTDX) run() error {
	if m.firmware == "" {
		return usagef("--firmware is missing")
	}
	if err := m.check(); err != nil {
		return err
	}
	r := measured.Result{Kind: measured.TDX}
	lists := []string{"measurements"}
	if err := m.mrtd(&r); err != nil {
		return err
	}
	if m.eventLog != "" {
		if err := m.rtmr0(&r); err != nil {
			return err
		}
		lists = append(lists, "rtmr0")
	}
	if m.uki != "" || m.kernel != "" {
		if err := m.rtmrs(&r); err != nil {
			return err
		}
		lists = append(lists, "rtmr1", "rtmr2")
	}
	var part strings.Builder
	part.WriteString("[tdx]\n" + debugLine(r))
	if m.uki == "" && m.kernel == "" {
		part.WriteString("# Without rtmr1 and rtmr2: any kernel and command line match, which keybroker refuses unless told.\n")
	}
	for i, name := range lists {
		part.WriteString(tomlList(name, r.Values[i:i+1]))
	}
	return m.print(r, part.String())
}

func (m *measureTDX) mrtd(r *measured.Result) error {
	order, ok := map[string]measure.TDXPageOrder{"page": measure.ExtendEachPage, "section": measure.ExtendEachSection}[m.order]
	if !ok {
		return usagef("--page-order %q: want page or section", m.order)
	}
	image, input, err := readArtifact("firmware", m.firmware, measure.MaxFirmwareSize)
	if err != nil {
		return err
	}
	firmware, err := measure.ParseFirmware(image)
	if err != nil {
		return err
	}
	mrtd, err := firmware.MRTD(order)
	if err != nil {
		return fmt.Errorf("computing MRTD: %w", err)
	}
	r.Inputs = append(r.Inputs, input, measured.Setting("page-order", m.order))
	r.Values = append(r.Values, measured.Value{Name: "MRTD", Hex: hex.EncodeToString(mrtd[:]), From: []string{"firmware", "page-order"}})
	return nil
}

func (m *measureTDX) rtmr0(r *measured.Result) error {
	log, input, err := readArtifact("event log", m.eventLog, evidence.MaxEventLogSize)
	if err != nil {
		return err
	}
	registers, err := evidence.ReplayEventLog(log)
	if err != nil {
		return err
	}
	r.Inputs = append(r.Inputs, input)
	r.Values = append(r.Values, measured.Value{Name: "RTMR0", Hex: hex.EncodeToString(registers[0][:]), From: []string{input.Name}})
	return nil
}

func (m *measureTDX) rtmrs(r *measured.Result) error {
	boot, err := m.load(r, false)
	if err != nil {
		return err
	}
	rtmrs, err := boot.rtmrs()
	if err != nil {
		return fmt.Errorf("computing RTMRs: %w", err)
	}
	r.Values = append(r.Values,
		measured.Value{Name: "RTMR1", Hex: hex.EncodeToString(rtmrs.RTMR1), From: boot.programs},
		measured.Value{Name: "RTMR2", Hex: hex.EncodeToString(rtmrs.RTMR2), From: boot.linux})
	return nil
}
