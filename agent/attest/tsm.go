// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/report"

	"github.com/casemate/casemate/agent/evidence"
)

// maxRaces is how often a report is asked for when somebody else writes to the same
// entry. Entries have random names, so even a second time means interference.
const maxRaces = 3

// provider returns the name of the kernel's report provider, such as "sev_guest".
func provider(client configfsi.Client) (name string, err error) {
	entry, err := report.CreateOpenReport(client)
	if err != nil {
		return "", fmt.Errorf("opening %s: %w", reportSubsystem, err)
	}
	defer func() { err = errors.Join(err, entry.Destroy()) }()
	// Nothing is reported until an output is read, so these zeros bind nothing.
	if err := entry.WriteOption("inblob", make([]byte, evidence.ReportDataSize)); err != nil {
		return "", fmt.Errorf("asking %s for its provider: %w", reportSubsystem, err)
	}
	text, err := entry.ReadOption("provider")
	if err != nil {
		return "", fmt.Errorf("asking %s for its provider: %w", reportSubsystem, err)
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}

// getReport makes one report bound to data, from the named provider only.
func getReport(ctx context.Context, client configfsi.Client, want string, data [evidence.ReportDataSize]byte) (*report.Response, error) {
	req := &report.Request{InBlob: data[:]}
	if want == snpProvider {
		// The most privileged level; a relying party accepts no other. TDX has neither.
		req.Privilege = &report.Privilege{Level: 0}
		req.GetAuxBlob = true
	}
	var err error
	for range maxRaces {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("asking %s for a report: %w", want, context.Cause(ctx))
		}
		var resp *report.Response
		if resp, err = report.Get(client, req); err == nil {
			if got := strings.TrimSuffix(resp.Provider, "\n"); got != want {
				return nil, fmt.Errorf("asking %s for a report: provider %.32q answered", want, got)
			}
			return resp, nil
		}
		if report.GetGenerationErr(err) == nil {
			return nil, fmt.Errorf("asking %s for a report: %w", want, err)
		}
	}
	return nil, fmt.Errorf("asking %s for a report: raced %d times by another writer: %w", want, maxRaces, err)
}

// freshData is what reports are bound to that are read here and never leave. It is not
// a ReportData, so no such report can serve as evidence.
func freshData() (data [evidence.ReportDataSize]byte) {
	rand.Read(data[:]) // never returns an error since Go 1.24
	return data
}
