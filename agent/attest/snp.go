// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-configfs-tsm/configfs/configfsi"

	"github.com/casemate/casemate/agent/evidence"
)

const snpProvider = "sev_guest"

// snpAttester is an AMD SEV-SNP guest.
type snpAttester struct{ source snpSource }

// snpSource makes a report bound to data, with the host's certificate table.
type snpSource interface {
	report(ctx context.Context, data [evidence.ReportDataSize]byte) (report, certs []byte, err error)
}

// tsmSNP is configfs-tsm.
type tsmSNP struct{ client configfsi.Client }

func (t tsmSNP) report(ctx context.Context, data [evidence.ReportDataSize]byte) (report, certs []byte, err error) {
	resp, err := getReport(ctx, t.client, snpProvider, data)
	if err != nil {
		return nil, nil, err
	}
	return resp.OutBlob, resp.AuxBlob, nil
}

func (*snpAttester) TEE() evidence.TEE { return evidence.SNP }

func (a *snpAttester) Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error) {
	if r.IsZero() {
		return nil, fmt.Errorf("making SNP evidence: %w", errNoReportData)
	}
	rep, aux, err := a.report(ctx, r.Bytes64())
	if err != nil {
		return nil, fmt.Errorf("making SNP evidence: %w", err)
	}
	certs, err := parseCertTable(aux)
	if err != nil {
		return nil, fmt.Errorf("making SNP evidence: certificate table of the host: %w", err)
	}
	return evidence.SNPEvidence{Report: rep, Certs: certs}.Encode()
}

// BoundInitData returns the 32 bytes of HOST_DATA.
func (a *snpAttester) BoundInitData(ctx context.Context) ([]byte, error) {
	rep, _, err := a.report(ctx, freshData())
	if err != nil {
		return nil, fmt.Errorf("reading HOST_DATA: %w", err)
	}
	return rep.HostData(), nil
}

func (a *snpAttester) report(ctx context.Context, data [evidence.ReportDataSize]byte) (evidence.SNPReport, []byte, error) {
	raw, certs, err := a.source.report(ctx, data)
	if err != nil {
		return evidence.SNPReport{}, nil, err
	}
	rep, err := evidence.ParseSNPReport(raw)
	if err != nil {
		return evidence.SNPReport{}, nil, err
	}
	// Not verification: it catches a report that was made for somebody else's request.
	if !bytes.Equal(rep.ReportData(), data[:]) {
		return evidence.SNPReport{}, nil, errors.New("the report is bound to other data than asked for")
	}
	return rep, certs, nil
}
