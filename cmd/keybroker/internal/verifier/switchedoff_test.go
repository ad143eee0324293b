// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"slices"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

// off is the table with one rule that finds nothing wrong any more.
func off[T any](checks []check[T], rule string) []check[T] {
	checks = slices.Clone(checks)
	for i, row := range checks {
		if row.name == rule {
			checks[i].judge = func(c T) (wanted, found string, ok bool) {
				wanted, found, _ = row.judge(c)
				return wanted, found, true
			}
		}
	}
	return checks
}

func names[T any](checks []check[T]) []string {
	var list []string
	for _, c := range checks {
		list = append(list, c.name)
	}
	return list
}

// sentence is evidence that one rule denies, with all that judges it.
type sentence struct {
	rule, name string
	verifier   *Verifier
	in         Input
}

// without judges with a rule switched off.
func (s *sentence) without(rule string) (v Verdict) {
	// Behind a gate that let nothing through there is nothing to judge.
	defer func() {
		if recover() != nil {
			v = Verdict{}
		}
	}()
	switch s.in.TEE {
	case evidence.SNP:
		v = s.verifier.snp.judge(s.in, off(snpChecks(), rule))
	case evidence.TDX:
		v = s.verifier.tdx.judge(s.in, off(tdxChecks(), rule))
	case evidence.TPM:
		v = judgeTPM(s.in, off(tpmChecks(), rule))
	case evidence.AzSNPvTPM, evidence.AzTDXvTPM:
		v = s.verifier.judgeAzure(s.in, off(azureChecks(s.in.TEE), rule))
	}
	devices := deviceTables()
	judgeDevices(s.in, deviceTable{off(devices.composite, rule), off(devices.tpm, rule), off(devices.sample, rule)}, &v)
	v.Facts.Debug = s.in.debugGuest()
	if v.complete {
		findings, _ := run(off(registrationChecks(), rule), claim{facts: v.Facts, registration: s.in.Registration})
		v.Findings = append(v.Findings, findings...)
	}
	return v
}

func snpSentences(t *testing.T) (list []sentence) {
	for _, tt := range violations {
		w := newWorld(t, milan())
		tt.do(t, w)
		w.verify(t)
		list = append(list, sentence{tt.rule, tt.name, w.verifier, w.in})
	}
	return list
}

func tdxSentences(t *testing.T) (list []sentence) {
	for _, tt := range tdxViolations {
		w := newTDXWorld(t, 5)
		tt.do(t, w)
		v := w.verifier(t)
		list = append(list, sentence{tt.rule, tt.name, v, w.in})
	}
	return list
}

func tpmSentences(t *testing.T) (list []sentence) {
	for _, tt := range tpmViolations {
		w := newTPMWorld(t)
		tt.do(t, w)
		w.verify(t)
		list = append(list, sentence{tt.rule, tt.name, nil, w.in})
	}
	return list
}

// TestEachCheckSwitchedOff: with a check off, exactly the evidence that it alone denies
// is not denied by it any more, and every other row stands. So no check is idle, none
// stands in for another, and a check that is lost is missed.
func TestEachCheckSwitchedOff(t *testing.T) {
	devices := deviceTables()
	for _, tee := range []struct {
		name      string
		checks    []string
		not       []string // registration checks about other TEEs
		sentences func(*testing.T) []sentence
	}{
		{"snp", names(snpChecks()), []string{"rtmr", "attestation-key-listed", "pcrs"}, snpSentences},
		{"tdx", names(tdxChecks()), []string{"attestation-key-listed", "pcrs"}, tdxSentences},
		{"tpm", names(tpmChecks()), []string{"measurement", "rtmr", "tcb-minimum", "test-root"}, tpmSentences},
		{"snp with devices", slices.Concat(names(snpChecks()), names(devices.composite), names(devices.tpm), names(devices.sample)), []string{"rtmr"}, compositeSentences},
		{"az-snp-vtpm", names(azureChecks(evidence.AzSNPvTPM)), []string{"rtmr", "attestation-key-listed"}, azureSentences(evidence.AzSNPvTPM)},
		{"az-tdx-vtpm", names(azureChecks(evidence.AzTDXvTPM)), []string{"attestation-key-listed"}, azureSentences(evidence.AzTDXvTPM)},
	} {
		t.Run(tee.name, func(t *testing.T) {
			sentences := tee.sentences(t)
			for _, rule := range append(tee.checks, names(registrationChecks())...) {
				rows := 0
				for _, s := range sentences {
					var denies []string
					for _, f := range s.without(rule).Failed() {
						denies = append(denies, f.Rule)
					}
					stands := slices.Equal(denies, []string{s.rule})
					if s.rule == rule {
						rows++
					}
					if stands == (s.rule == rule) {
						t.Errorf("without %s: %s/%s is denied by %q", rule, s.rule, s.name, denies)
					}
				}
				if (rows == 0) != slices.Contains(tee.not, rule) {
					t.Errorf("%s: %d rows", rule, rows)
				}
			}
			t.Logf("%d pieces of evidence", len(sentences))
		})
	}
}
