// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/measured"
	"github.com/casemate/casemate/rootfs/image"
	"github.com/casemate/casemate/rootfs/measure"
)

type measureSNP struct {
	measureOutput
	firmware, kernel, initrd, appendText string
	hasInitrd, hasAppend                 bool
	vcpus                                []int
	types, features                      []string
}

func newMeasureSNP(s streams) *cobra.Command {
	m := &measureSNP{measureOutput: measureOutput{streams: s}}
	c := &cobra.Command{
		Use:   "snp --firmware FILE --vcpus N --vcpu-type TYPE [--kernel FILE]",
		Short: "Compute the launch digest of SEV-SNP under QEMU with OVMF",
		Long: `Compute the MEASUREMENT of SEV-SNP reports of guests that QEMU launches with OVMF:
with --kernel those with kernel-hashes=on, where kernel, initrd and command line are
measured, without it those that boot from a disk, which is then not measured.
Several numbers, types or features give a value for each combination.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			m.hasInitrd, m.hasAppend = c.Flags().Changed("initrd"), c.Flags().Changed("append")
			return m.run()
		},
	}
	c.Flags().StringVar(&m.firmware, "firmware", "", "`FILE` given to QEMU as -bios: OVMF built for SEV-SNP")
	c.Flags().StringVar(&m.kernel, "kernel", "", "`FILE` given to QEMU as -kernel")
	c.Flags().StringVar(&m.initrd, "initrd", "", "`FILE` given to QEMU as -initrd")
	c.Flags().StringVar(&m.appendText, "append", "", "`TEXT` given to QEMU as -append, to the last space")
	c.Flags().IntSliceVar(&m.vcpus, "vcpus", nil, "`N`: number of processors; a list with commas for alternatives")
	c.Flags().StringSliceVar(&m.types, "vcpu-type", nil, "`TYPE` given to QEMU as -cpu, as EPYC-v4 or EPYC-Milan, or a signature as 0xa00f11; or a list")
	c.Flags().StringSliceVar(&m.features, "guest-features", []string{"0x1"}, "`HEX` of SEV_FEATURES; or a list. Some hosts set debug swap: 0x21")
	m.flags(c)
	return c
}

func (m *measureSNP) run() error {
	if m.firmware == "" || len(m.vcpus) == 0 || len(m.types) == 0 {
		return usagef("--firmware, --vcpus and --vcpu-type are all needed")
	}
	if m.kernel == "" && (m.hasInitrd || m.hasAppend) {
		return usagef("--initrd and --append are measured with --kernel only")
	}
	r := measured.Result{Kind: measured.SNP}
	launch, err := m.launch(&r)
	if err != nil {
		return err
	}
	if err := m.sweep(&r, launch); err != nil {
		return err
	}
	part := "[snp]\n" + debugLine(r)
	if m.kernel == "" {
		part += "# The firmware alone: whatever it boots from a disk matches.\nfirmware_only = true\n"
	}
	return m.print(r, part+tomlList("measurements", r.Values))
}

// launch reads the artifacts and notes them in r.
func (m *measureSNP) launch(r *measured.Result) (measure.SNPLaunch, error) {
	var l measure.SNPLaunch
	read := func(role, name string, limit int64) ([]byte, error) {
		content, input, err := readArtifact(role, name, limit)
		if err == nil {
			r.Inputs = append(r.Inputs, input)
		}
		return content, err
	}
	firmware, err := read("firmware", m.firmware, measure.MaxFirmwareSize)
	if err != nil {
		return l, err
	}
	if l.Firmware, err = measure.ParseFirmware(firmware); err != nil {
		return l, err
	}
	if m.kernel == "" {
		return l, nil
	}
	l.Kernel = &measure.Kernel{CommandLine: m.appendText}
	if l.Kernel.Kernel, err = read("kernel", m.kernel, maxArtifact); err != nil {
		return l, err
	}
	if m.hasInitrd {
		if l.Kernel.Initrd, err = read("initrd", m.initrd, maxArtifact); err != nil {
			return l, err
		}
		if image.Debug(l.Kernel.Initrd) {
			r.MarkDebug()
		}
	}
	if m.hasAppend {
		r.Inputs = append(r.Inputs, measured.Setting("append", m.appendText))
	}
	return l, nil
}

// sweep adds the value of every combination.
func (m *measureSNP) sweep(r *measured.Result, l measure.SNPLaunch) error {
	var from []string
	for _, input := range r.Inputs {
		from = append(from, input.Name)
	}
	for _, name := range m.types {
		cpu, err := measure.ParseCPU(name)
		if err != nil {
			return usagef("--vcpu-type: %w", err)
		}
		for _, text := range m.features {
			features, err := strconv.ParseUint(text, 0, 64)
			if err != nil {
				return usagef("--guest-features %q: want a number as 0x1", text)
			}
			for _, n := range m.vcpus {
				l.CPU, l.GuestFeatures, l.VCPUs = cpu, features, n
				digest, err := l.LaunchDigest()
				if err != nil {
					return fmt.Errorf("computing the launch digest: %w", err)
				}
				r.Values = append(r.Values, measured.Value{
					Name: fmt.Sprintf("measurement vcpus=%d vcpu-type=%s guest-features=%#x", n, name, features),
					Hex:  hex.EncodeToString(digest[:]), From: from,
				})
			}
		}
	}
	return nil
}
