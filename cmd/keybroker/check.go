// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/api"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// maxSaved bounds a file of evidence in bytes: a transcript has the attestation, a token's claims and the broker's words.
const maxSaved = 2*evidence.MaxAttestationSize + evidence.MaxTokenSize

// checkFlags are those of keybroker check.
type checkFlags struct {
	with     beside
	verifier verifierFlags
	tee      string
	data     string
	initdata string
	at       string
	json     bool
}

func newCheck(s streams) *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check REGISTRATION EVIDENCE",
		Short: "Judge saved evidence by a registration's file, without a keybroker",
		Long: `Judge evidence that a guest has left by the file of a registration, and print each rule with what was wanted
and found. No keybroker is asked and nothing is released; exit code 1 says that a guest with this evidence would be refused.

EVIDENCE is the transcript of a handshake, /run/casemate/attestation.json of the guest, or with --tee what casemate
evidence has printed, which needs --initdata and, if it was bound to data, --data. Whether a nonce was fresh is not judged:
evidence that is accepted here may be an old one.`,
		Args: exactly("REGISTRATION", "EVIDENCE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if f.tee == "" && (f.data != "" || f.initdata != "") {
				return usagef("--data and --initdata are for evidence without a handshake, which --tee announces")
			}
			if f.verifier.kds != "" && f.verifier.collateral == "" {
				return usagef("--amd-kds needs --snp-collateral here")
			}
			return check(s, f, args[0], args[1])
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.tee, "tee", "", "EVIDENCE is bare, of this TEE: snp, tdx, az-snp-vtpm, az-tdx-vtpm, tpm, sample")
	flags.StringVar(&f.data, "data", "", "the file that casemate evidence --data was given")
	flags.StringVar(&f.initdata, "initdata", "", "the initdata document of the guest")
	flags.StringVar(&f.at, "at", "", "judge as of this time, such as 2026-11-25T12:00:00Z (default now)")
	flags.BoolVar(&f.json, "json", false, "print the result for programs")
	f.with.add(flags)
	f.verifier.add(flags)
	return c
}

func check(s streams, f checkFlags, registration, saved string) error {
	in, document, err := f.read(saved)
	if err != nil {
		return err
	}
	if in.Registration, err = readRegistration(registration, f.with); err != nil {
		return err
	}
	judge, err := f.verifier.open("")
	if err != nil {
		return err
	}
	verdict := api.Rejudge(judge, in, document)
	show := printVerdict
	if f.json {
		show = printVerdictJSON
	}
	if err := show(s.out, in, verdict); err != nil {
		return err
	}
	if failed := verdict.Failed(); len(failed) > 0 {
		return fmt.Errorf("refused by rule %q", failed[0].Rule)
	}
	if !verdict.Allowed() {
		return errors.New("refused: not every rule was judged")
	}
	return nil
}

// read takes saved evidence apart; the initdata document is nil where there was none.
func (f checkFlags) read(name string) (in verifier.Input, document []byte, err error) {
	in.Now = time.Now()
	if f.at != "" {
		if in.Now, err = time.Parse(time.RFC3339, f.at); err != nil {
			return in, nil, usagef("--at %q: want a time such as 2026-11-25T12:00:00Z", f.at)
		}
	}
	text, err := readFile(name, maxSaved)
	if err != nil {
		return in, nil, fmt.Errorf("reading evidence: %w", err)
	}
	if f.tee != "" {
		document, err = f.bare(&in, text)
	} else {
		document, err = handshake(&in, text)
	}
	if err != nil {
		return in, nil, fmt.Errorf("reading evidence %s: %w", name, err)
	}
	return in, document, nil
}

// bare is what casemate evidence prints: bound to data in the domain of workloads.
func (f checkFlags) bare(in *verifier.Input, text []byte) (document []byte, err error) {
	in.TEE, in.Evidence = evidence.TEE(f.tee), text
	var data []byte
	if f.data != "" {
		if data, err = readFile(f.data, evidence.MaxAttestationSize); err != nil {
			return nil, err
		}
	}
	in.ReportData = evidence.WorkloadReportData(data)
	if f.initdata == "" {
		return nil, nil
	}
	return readFile(f.initdata, evidence.MaxInitDataSize)
}

// transcript is what counts of a handshake's; agent/kbs.Transcript has it all.
type transcript struct {
	TEE  evidence.TEE           `json:"tee"`
	Hash evidence.HashAlgorithm `json:"hash"`
	Sent jsontext.Value         `json:"sent"`
}

// handshake is what a guest keeps of its last one.
func handshake(in *verifier.Input, text []byte) (document []byte, err error) {
	var t transcript
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, err
	}
	if t.Sent == nil {
		return nil, errors.New("the handshake ended before anything was sent")
	}
	a, err := evidence.ParseAttestation(t.Sent)
	if err != nil {
		return nil, err
	}
	in.TEE, in.Evidence = t.TEE, a.Evidence
	if in.Devices, err = evidence.ParseAdditional(a.RuntimeData.AdditionalEvidence()); err != nil {
		return nil, err
	}
	if in.ReportData, err = a.RuntimeData.ReportData(t.Hash); err != nil {
		return nil, err
	}
	if in.DeviceData, err = a.RuntimeData.DeviceReportData(t.Hash); err != nil {
		return nil, err
	}
	return a.InitData, nil
}

// printVerdict quotes what a guest or its host chose, which may try to move a terminal.
func printVerdict(out io.Writer, in verifier.Input, v verifier.Verdict) error {
	fmt.Fprintf(out, "evidence of %s, judged by workload %s as of %s\n", plain(string(in.TEE)), in.Registration.ID, in.Now.UTC().Format(time.RFC3339))
	for _, finding := range v.Findings {
		word := "ok    "
		if !finding.OK {
			word = "REFUSE"
		}
		fmt.Fprintf(out, "%s  %s\n", word, finding.Rule)
		if !finding.OK {
			fmt.Fprintf(out, "          wanted  %s\n          found   %s\n", plain(finding.Wanted), plain(finding.Found))
		}
	}
	var err error
	if v.Allowed() {
		_, err = fmt.Fprintln(out, "accepted, if its nonce is fresh")
	}
	return err
}

func printVerdictJSON(out io.Writer, in verifier.Input, v verifier.Verdict) error {
	return printJSON(out, struct {
		Accepted bool               `json:"accepted"`
		Workload string             `json:"workload"`
		At       time.Time          `json:"at"`
		Findings []verifier.Finding `json:"findings"`
		Facts    verifier.Facts     `json:"facts"`
		Claims   jsontext.Value     `json:"claims,omitempty"`
	}{v.Allowed(), in.Registration.ID, in.Now.UTC(), v.Findings, v.Facts, v.Claims})
}
