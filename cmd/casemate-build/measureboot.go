// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/measured"
	"github.com/casemate/casemate/rootfs/image"
	"github.com/casemate/casemate/rootfs/measure"
)

// measureBoot are the flags that say what boots: a UKI, or a kernel that QEMU loads.
type measureBoot struct {
	uki, kernel, initrd, appendText string
	memory                          uint64
}

func (b *measureBoot) flags(c *cobra.Command) {
	c.Flags().StringVar(&b.uki, "uki", "", "`FILE`: a unified kernel image")
	c.Flags().StringVar(&b.kernel, "kernel", "", "`FILE` given to QEMU 7.2 as -kernel in place of a UKI, on machine q35")
	c.Flags().StringVar(&b.initrd, "initrd", "", "`FILE` given to QEMU as -initrd with that kernel")
	c.Flags().Uint64Var(&b.memory, "memory", 0, "`MIB` of memory with that kernel, whose header QEMU fills in")
	c.Flags().StringVar(&b.appendText, "append", "", "`TEXT` given to QEMU as -append; with a UKI it takes the place of its own command line where secure boot is off")
}

// check refuses what does not go together. Nothing to boot is for the caller to judge.
func (b *measureBoot) check() error {
	switch {
	case b.uki != "" && b.kernel != "":
		return usagef("want one of --uki and --kernel")
	case b.kernel == "" && (b.initrd != "" || b.memory != 0):
		return usagef("--initrd and --memory are for --kernel")
	case b.kernel != "" && (b.initrd == "" || b.memory == 0 || b.appendText == ""):
		return usagef("--kernel needs --initrd, --append and --memory")
	case b.uki == "" && b.kernel == "" && b.appendText != "":
		return usagef("--append is for --uki or --kernel")
	}
	return nil
}

// booted computes registers, and knows which inputs each kind is made of.
type booted struct {
	pcrs  func(crypto.Hash) (measure.PCRs, error)
	rtmrs func() (measure.RTMRs, error)

	programs []string // PCR 4 and RTMR 1
	linux    []string // PCR 9 and RTMR 2
	sections []string // PCR 11
	options  []string // PCR 12
}

// load reads the artifacts and notes them in r. fromDisk says that a UKI is started
// from there.
func (b *measureBoot) load(r *measured.Result, fromDisk bool) (*booted, error) {
	if b.kernel != "" {
		return b.loadKernel(r)
	}
	program, input, err := readArtifact("uki", b.uki, measure.MaxPESize)
	if err != nil {
		return nil, err
	}
	uki, err := measure.ParseUKI(program)
	if err != nil {
		return nil, err
	}
	// The parts as well, so that a difference can be laid to one.
	r.Inputs = append(r.Inputs, input, measured.Setting("uki stub", uki.Stub), measured.File("uki .linux", uki.Linux),
		measured.File("uki .osrel", uki.OSRelease), measured.File("uki .cmdline", uki.CommandLine), measured.File("uki .initrd", uki.Initrd))
	sections := []string{"uki stub", "uki .linux", "uki .osrel", "uki .cmdline", "uki .initrd"}
	boot := measure.TPMBoot{UKI: uki, QEMUKernel: !fromDisk, LoadOptions: b.appendText}
	trusted := measure.TDXBoot{UKI: uki, LoadOptions: b.appendText}
	result := &booted{
		pcrs: boot.PCRs, rtmrs: trusted.RTMRs,
		programs: append([]string{"uki"}, sections...), linux: []string{"uki .cmdline", "uki .initrd"}, sections: sections,
	}
	if image.Debug(uki.Initrd) {
		r.MarkDebug()
	}
	if b.appendText != "" {
		r.Inputs = append(r.Inputs, measured.Setting("append", b.appendText))
		result.linux[0], result.options = "append", []string{"append"}
	}
	return result, nil
}

func (b *measureBoot) loadKernel(r *measured.Result) (*booted, error) {
	kernel, kernelInput, err := readArtifact("kernel", b.kernel, maxArtifact)
	if err != nil {
		return nil, err
	}
	initrd, initrdInput, err := readArtifact("initrd", b.initrd, maxArtifact)
	if err != nil {
		return nil, err
	}
	r.Inputs = append(r.Inputs, kernelInput, initrdInput, measured.Setting("append", b.appendText),
		measured.Setting("memory", strconv.FormatUint(b.memory, 10)))
	if image.Debug(initrd) {
		r.MarkDebug()
	}
	boot := measure.QEMUKernelBoot{Kernel: kernel, Initrd: initrd, CommandLine: b.appendText, MemoryMiB: b.memory}
	return &booted{
		pcrs: boot.PCRs, rtmrs: boot.RTMRs,
		// The header says where the initrd is, which follows from its size and the memory.
		programs: []string{"kernel", "initrd", "memory"}, linux: []string{"append", "initrd"},
	}, nil
}
