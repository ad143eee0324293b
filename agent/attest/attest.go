// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"

	"github.com/casemate/casemate/agent/evidence"
)

// Attester produces evidence of the machine. It is safe for concurrent use.
type Attester interface {
	// TEE returns the name that a KBS request carries.
	TEE() evidence.TEE
	// Evidence returns fresh evidence bound to r, a JSON object. It refuses the zero
	// ReportData.
	Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error)
}

// InitDataReader is what an Attester can also do when the hardware keeps the digest of
// the initdata document.
type InitDataReader interface {
	// BoundInitData returns HOST_DATA (32 bytes) or MRCONFIGID (48 bytes) out of a
	// report made by this call.
	BoundInitData(ctx context.Context) ([]byte, error)
}

// InitDataRecorder is what an Attester can do instead when the guest itself records the
// digest, in a register that can only be extended.
type InitDataRecorder interface {
	// RecordInitData records a digest of 32 bytes, or requires that none is recorded when
	// digest is nil. A register with another value is an error that names it.
	RecordInitData(ctx context.Context, digest []byte) error
}

// RuntimeLog is the guest's own event log; eventlog.Log is one.
type RuntimeLog interface {
	// Hold calls f with the entries of the log that the register holds, in the log's own form,
	// nil for none, and lets nobody extend the register until f returns.
	Hold(f func(entries []byte) error) error
}

// Config says where to look. Its zero value is the real machine.
type Config struct {
	// TEE, when set, must be what the machine has. evidence.Sample asks for the sample
	// TEE, which only a binary built for it contains.
	TEE evidence.TEE
	// TPM connects to the TPM; nil opens the machine's. A plain one is used only when TEE
	// is evidence.TPM; Azure's vTPM is known by the hardware's report in it.
	TPM TPMOpener
	// TPMEventLog is the path of the firmware's event log; "" is the kernel's path.
	TPMEventLog string
	// AzureMetadata is the address of Azure's metadata service; "" is the real one.
	AzureMetadata string
	// TestSignerDir asks for a test signer with the key material in this directory,
	// which only a binary built for it contains.
	TestSignerDir string
	// TSM is the kernel's configfs-tsm; nil opens the real one.
	TSM configfsi.Client
	// EventLog is the path of the firmware's event log; "" is the kernel's path.
	EventLog string
	// Runtime is the log of what the guest did since it booted; nil is none. TDX
	// and plain TPM evidence carry it.
	Runtime RuntimeLog
	// Log tells what evidence is made of; nil discards.
	Log *slog.Logger

	// openTSM and sevGuest are the kernel's; nil for the real ones.
	openTSM  func() (configfsi.Client, error)
	sevGuest sevIoctl
}

// Devices returns attesters for the named devices, in that order: they attest beside the TEE
// that Detect found. A name is an error where the machine has no such device; none is
// looked for that is not named.
func Devices(cfg Config, names []evidence.TEE) ([]Attester, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var list []Attester
	for _, name := range names {
		var device Attester
		var err error
		switch name {
		case evidence.TPM:
			device, err = openTPMAttester(cfg)
		case evidence.SampleDevice:
			device, err = newSampleDevice(cfg)
		default:
			err = errors.New("no attester for it here")
		}
		if err != nil {
			return nil, fmt.Errorf("detecting device %.32q: %w", name, err)
		}
		list = append(list, device)
	}
	return list, nil
}

const reportSubsystem = configfsi.TsmPrefix + "/report"

// Detect returns the attester for the TEE that this machine has. Where it finds none,
// the error names every place it looked at.
func Detect(cfg Config) (Attester, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.EventLog == "" {
		cfg.EventLog = ccelPath
	}
	if cfg.openTSM == nil {
		cfg.openTSM = linuxtsm.MakeClient
	}
	if cfg.sevGuest == nil {
		cfg.sevGuest = sevGuestIoctl
	}
	switch {
	case cfg.TestSignerDir != "" && cfg.TEE != "" && cfg.TEE != evidence.SNP:
		return nil, fmt.Errorf("detecting a TEE: the test signer is for %s, not %s", evidence.SNP, cfg.TEE)
	case cfg.TestSignerDir != "":
		return newTestSNP(cfg)
	case cfg.TEE == evidence.Sample:
		return newSample(cfg)
	case cfg.TEE == evidence.TPM:
		return newTPM(cfg)
	}
	attester, err := detectTSM(cfg)
	if err != nil && cfg.TEE != evidence.SNP && cfg.TEE != evidence.TDX {
		var none error
		if attester, none = detectAzure(cfg); none == nil {
			err = nil
		} else {
			err = fmt.Errorf("%w; %w", err, none)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("detecting a TEE: %w", err)
	}
	if cfg.TEE != "" && cfg.TEE != attester.TEE() {
		return nil, fmt.Errorf("detecting a TEE: found %s, configured is %s", attester.TEE(), cfg.TEE)
	}
	return attester, nil
}

func detectTSM(cfg Config) (Attester, error) {
	if cfg.TSM == nil {
		client, err := cfg.openTSM()
		if errors.Is(err, fs.ErrNotExist) {
			if a, none := detectSEVGuest(cfg); !errors.Is(none, fs.ErrNotExist) {
				return a, none
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w (%s)", err, devices())
		}
		cfg.TSM = client
	}
	name, err := provider(cfg.TSM)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, devices())
	}
	switch name {
	case snpProvider:
		return &snpAttester{source: tsmSNP{cfg.TSM}}, nil
	case tdxProvider:
		return &tdxAttester{tsm: cfg.TSM, eventLog: cfg.EventLog, runtime: cfg.Runtime, log: cfg.Log}, nil
	}
	return nil, fmt.Errorf("unsupported report provider %.32q in %s, want %s or %s", name, reportSubsystem, snpProvider, tdxProvider)
}

// detectSEVGuest finds an SNP guest whose kernel has no configfs-tsm, by a report that is
// thrown away. The error is fs.ErrNotExist where there is no such device.
func detectSEVGuest(cfg Config) (Attester, error) {
	a := &snpAttester{source: sevGuest{cfg.sevGuest}}
	if _, _, err := a.report(context.Background(), freshData()); err != nil {
		return nil, err
	}
	return a, nil
}

// devices says which guest devices exist, for whoever reads that there is no TEE: TDX's
// without configfs-tsm is a kernel before 6.7 or a missing mount.
func devices() string {
	var states []string
	for _, path := range []string{"/dev/sev-guest", "/dev/tdx_guest"} {
		state := "absent"
		if _, err := os.Stat(path); err == nil {
			state = "present"
		}
		states = append(states, path+" "+state)
	}
	return strings.Join(states, ", ")
}

// errNoReportData refuses evidence bound to nothing, which anybody could replay.
var errNoReportData = errors.New("no report data to bind the evidence to")
