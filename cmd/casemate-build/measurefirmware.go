// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"strconv"
	"strings"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/measured"
	"github.com/casemate/casemate/rootfs/measure"
)

// loggedFirmware is firmware with the log of a boot of it.
type loggedFirmware struct {
	volumes *measure.FirmwareVolumes
	log     []byte
	machine *measure.OVMFMachine // nil is not told
	from    []string             // inputs
}

// loadFirmware reads both and notes them in r; nil is none.
func (m *measureTPM) loadFirmware(r *measured.Result) (*loggedFirmware, error) {
	if m.firmware == "" {
		return nil, nil
	}
	image, input, err := readArtifact("firmware", m.firmware, measure.MaxFirmwareSize)
	if err != nil {
		return nil, err
	}
	log, logInput, err := readArtifact("event log", m.eventLog, evidence.MaxEventLogSize)
	if err != nil {
		return nil, err
	}
	volumes, err := measure.ParseVolumes(image)
	if err != nil {
		return nil, err
	}
	r.Inputs = append(r.Inputs, input, logInput)
	f := &loggedFirmware{volumes: volumes, log: log, from: []string{input.Name, logInput.Name}}
	if m.machine != "" {
		if f.machine, err = parseMachine(m.machine); err != nil {
			return nil, err
		}
		machine := measured.Setting("machine", m.machine)
		r.Inputs = append(r.Inputs, machine)
		f.from = append(f.from, machine.Name)
	}
	return f, nil
}

// parseMachine reads MEMORY,PROCESSORS.
func parseMachine(text string) (*measure.OVMFMachine, error) {
	memory, cpus, ok := strings.Cut(text, ",")
	mib, err := strconv.ParseUint(memory, 10, 32)
	n, err2 := strconv.ParseUint(cpus, 10, 16)
	if !ok || err != nil || err2 != nil {
		return nil, usagef("--machine %q: want MiB of memory and processors, as 512,1", text)
	}
	return &measure.OVMFMachine{MemoryMiB: mib, CPUs: int(n)}, nil
}

// pcr0 replays the firmware's events and compares them with the file.
func (f *loggedFirmware) pcr0(h crypto.Hash) ([]byte, error) {
	logged, err := evidence.TPMLogEvents(f.log, 0, h)
	if err != nil {
		return nil, err
	}
	var events []measure.FirmwareEvent
	for _, e := range logged {
		events = append(events, measure.FirmwareEvent(e))
	}
	return f.volumes.PCR0(events, f.machine, h)
}
