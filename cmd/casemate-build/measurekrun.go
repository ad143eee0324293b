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
	"github.com/casemate/casemate/storage/krun"
)

// maxKrunConfig bounds a file krun-sev.json, in bytes.
const maxKrunConfig = 1 << 20

type measureKrun struct {
	measureOutput
	library, config string
	cpus            []int
	memory          []uint
	kernels         []string
	features        []string
}

func newMeasureKrun(s streams) *cobra.Command {
	m := &measureKrun{measureOutput: measureOutput{streams: s}}
	c := &cobra.Command{
		Use:   "krun --library FILE [--config FILE | --cpus N --memory MIB]",
		Short: "Compute the launch digest of SEV-SNP under libkrun",
		Long: `Compute the MEASUREMENT of SEV-SNP reports of guests that libkrun launches for a
confidential-workload image: of the library libkrunfw-sev, which holds firmware, kernel
and initrd, and of the numbers in krun-sev.json, as casemate-build disk --krun-config
and buildah mkcw write it. The disk is not measured. No digest of such a guest has been compared with silicon.
Several numbers, hosts or features give a value for each combination. What buildah registers
is that of host 5.14.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return m.run() },
	}
	c.Flags().StringVar(&m.library, "library", "", "`FILE`: libkrunfw-sev.so of libkrunfw 4 or 5 (required)")
	c.Flags().StringVar(&m.config, "config", "", "`FILE`: krun-sev.json, in place of --cpus and --memory")
	c.Flags().IntSliceVar(&m.cpus, "cpus", nil, "`N`: number of processors; a list with commas for alternatives")
	c.Flags().UintSliceVar(&m.memory, "memory", nil, "`MIB` of memory; or a list")
	c.Flags().StringSliceVar(&m.kernels, "host", []string{"6.11", "5.14"}, "the host's `LINUX`: 6.11 stands for it and later ones, 5.14 for that with AMD's patches")
	c.Flags().StringSliceVar(&m.features, "guest-features", []string{"0x1"}, "`HEX` of SEV_FEATURES; or a list")
	m.flags(c)
	return c
}

func (m *measureKrun) run() error {
	switch {
	case m.library == "":
		return usagef("--library is needed")
	case m.config != "" && (len(m.cpus) > 0 || len(m.memory) > 0):
		return usagef("want --config, or --cpus and --memory")
	case m.config == "" && (len(m.cpus) == 0 || len(m.memory) == 0):
		return usagef("--config, or --cpus and --memory, are needed")
	}
	if m.config != "" {
		if err := m.readConfig(); err != nil {
			return err
		}
	}
	library, input, err := readArtifact("library", m.library, measure.MaxKrunLibrarySize)
	if err != nil {
		return err
	}
	f, err := measure.ParseKrunLibrary(library)
	if err != nil {
		return err
	}
	// Its parts as well, so that a difference can be laid to one.
	r := measured.Result{Kind: measured.SNP, Inputs: []measured.Input{
		input, measured.File("qboot", f.Qboot), measured.File("kernel", f.Kernel), measured.File("initrd", f.Initrd),
	}}
	if image.Debug(f.Initrd) {
		r.MarkDebug()
	}
	if err := m.sweep(&r, f); err != nil {
		return err
	}
	return m.print(r, "[snp]\n"+debugLine(r)+tomlList("measurements", r.Values))
}

// readConfig takes the numbers of a file that libkrun reads.
func (m *measureKrun) readConfig() error {
	text, err := readFile(m.config, maxKrunConfig)
	if err != nil {
		return fmt.Errorf("reading config: %w", err)
	}
	t, err := krun.ParseObject(text)
	if err != nil {
		return fmt.Errorf("%s: %w", m.config, err)
	}
	if t.TEE != "snp" {
		return fmt.Errorf("%s: tee is %s, want snp", m.config, t.TEE)
	}
	m.cpus, m.memory = []int{t.CPUs}, []uint{uint(t.RAMMiB)}
	return nil
}

// sweep adds the value of every combination.
func (m *measureKrun) sweep(r *measured.Result, f *measure.KrunFirmware) error {
	for _, text := range m.features {
		features, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			return usagef("--guest-features %q: want a number as 0x1", text)
		}
		for _, host := range m.kernels {
			fpu, ok := map[string]bool{"6.11": true, "5.14": false}[host]
			if !ok {
				return usagef("--host %q: want 6.11 or 5.14", host)
			}
			if err := m.guests(r, measure.KrunLaunch{Firmware: f, GuestFeatures: features, FPU: fpu}, host); err != nil {
				return err
			}
		}
	}
	return nil
}

// guests adds the values of all sizes of guests on one kind of host.
func (m *measureKrun) guests(r *measured.Result, l measure.KrunLaunch, host string) error {
	for _, memory := range m.memory {
		for _, cpus := range m.cpus {
			l.CPUs, l.MemoryMiB = cpus, uint64(memory)
			digest, err := l.LaunchDigest()
			if err != nil {
				return fmt.Errorf("computing the launch digest: %w", err)
			}
			r.Values = append(r.Values, measured.Value{
				Name: fmt.Sprintf("measurement krun cpus=%d memory=%d host=%s guest-features=%#x", cpus, memory, host, l.GuestFeatures),
				Hex:  hex.EncodeToString(digest[:]), From: []string{"library", "qboot", "kernel", "initrd"},
			})
		}
	}
	return nil
}
