// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
)

// sampleVector says what it is: hardware and executables of nobody knows what.
var sampleVector = Vector{Hardware: 97, Executables: 33, Configuration: 36}

type sampleCase struct {
	in  Input
	err error
	ev  evidence.SampleEvidence
}

func sampleChecks() []check[*sampleCase] {
	return []check[*sampleCase]{
		{name: "format", gate: true, judge: func(c *sampleCase) (wanted, found string, ok bool) {
			return "sample evidence", describeError(c.err), c.err == nil
		}},
		{name: "report-data", judge: func(c *sampleCase) (wanted, found string, ok bool) {
			// The sample TEE carries the digest without padding.
			want := c.in.ReportData.Digest()
			return fmt.Sprintf("%x", want), fmt.Sprintf("%x", c.ev.ReportData), len(want) > 0 && bytes.Equal(want, c.ev.ReportData)
		}},
	}
}

// verifySample accepts what anybody can make. It is reached only for a session that
// asked for the sample TEE, and tee-listed denies it unless the workload lists it.
func verifySample(in Input) Verdict {
	c := &sampleCase{in: in}
	c.ev, c.err = evidence.ParseSampleEvidence(in.Evidence)
	v := Verdict{Facts: Facts{TEE: evidence.Sample, InitData: in.InitData.String()}, Vector: sampleVector}
	v.Findings, v.complete = run(sampleChecks(), c)
	claims, err := json.Marshal(struct {
		SVN        string `json:"svn"`
		ReportData string `json:"report_data"`
		InitData   string `json:"init_data"`
	}{c.ev.SVN, fmt.Sprintf("%x", c.ev.ReportData), fmt.Sprintf("%x", in.InitData.Sum)})
	v.Claims, v.complete = claims, v.complete && err == nil
	return v
}

func describeError(err error) string {
	if err == nil {
		return "well-formed"
	}
	return err.Error()
}
