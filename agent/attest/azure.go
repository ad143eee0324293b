// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/casemate/casemate/agent/evidence"
)

// Places in the vTPM of Azure's paravisor (azure-cvm-tooling, az-cvm-vtpm).
const (
	azureReportIndex tpm2.TPMHandle = 0x01400001 // the HCL report
	azureDataIndex   tpm2.TPMHandle = 0x01400002 // what the next report is bound to
	azureKeyHandle   tpm2.TPMHandle = 0x81000003 // the key that the report's claims name
)

const (
	// azureWait is how long the paravisor may take until the report has the new data; it
	// takes about two seconds.
	azureWait = 15 * time.Second
	azurePoll = 200 * time.Millisecond

	// nvBatch is how much one TPM2_NV_Read returns of every TPM.
	nvBatch = 512
)

// azureAttester is a confidential VM below Azure's paravisor, which has neither
// /dev/sev-guest nor /dev/tdx_guest: the paravisor took the report, and a vTPM that it
// keeps vouches for what the guest booted.
type azureAttester struct {
	*tpmAttester // PCR 8 takes the initdata, as on a plain TPM
	tee          evidence.TEE
	metadata     azureMetadata
}

// detectAzure returns nil where the machine has no such vTPM.
func detectAzure(cfg Config) (Attester, error) {
	a := &azureAttester{tpmAttester: &tpmAttester{open: cfg.TPM, log: cfg.Log}, metadata: newAzureMetadata(cfg.AzureMetadata)}
	if a.open == nil {
		a.open = openTPM
	}
	var raw []byte
	err := a.use(context.Background(), func(t transport.TPM) (err error) {
		raw, err = readNV(t, azureReportIndex)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("no report in a vTPM: %w", err)
	}
	report, err := evidence.ParseHCLReport(raw)
	if err != nil {
		return nil, err
	}
	a.tee = report.TEE
	cfg.Log.Info("the paravisor of Azure took the hardware's report", "tee", a.tee)
	return a, nil
}

func (a *azureAttester) TEE() evidence.TEE { return a.tee }

func (a *azureAttester) Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error) {
	e, err := a.evidence(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("making %s evidence: %w", a.tee, err)
	}
	return e.Encode()
}

func (a *azureAttester) evidence(ctx context.Context, r evidence.ReportData) (e evidence.AzureEvidence, err error) {
	if r.IsZero() {
		return e, errNoReportData
	}
	digest := r.Digest()
	err = a.use(ctx, func(t transport.TPM) error { return writeNV(t, azureDataIndex, digest) })
	if err != nil {
		return e, err
	}
	if err := a.awaitReport(ctx, &e, digest); err != nil {
		return e, err
	}
	err = a.use(ctx, func(t transport.TPM) error { return azureQuote(t, &e, digest) })
	if err != nil {
		return e, err
	}
	if a.tee == evidence.AzSNPvTPM {
		e.VCEK, err = a.metadata.vcek(ctx)
	} else {
		e.Quote, err = a.metadata.tdQuote(ctx, e.Report.Hardware)
	}
	return e, err
}

// awaitReport reads the report until its claims have the data that was just written.
// Upstream waits three seconds and takes what is there.
func (a *azureAttester) awaitReport(ctx context.Context, e *evidence.AzureEvidence, digest []byte) error {
	for end := time.Now().Add(azureWait); ; {
		err := a.use(ctx, func(t transport.TPM) (err error) {
			e.HCL, err = readNV(t, azureReportIndex)
			return err
		})
		if err != nil {
			return err
		}
		e.HCL = bytes.TrimRight(e.HCL, "\x00")
		if e.Report, err = evidence.ParseHCLReport(e.HCL); err != nil {
			return err
		}
		if e.Report.TEE != a.tee {
			return fmt.Errorf("the report is of %s now", e.Report.TEE)
		}
		claims, err := e.Report.ReadClaims()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(claims.UserData, digest) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s the paravisor's report is still bound to other data", azureWait)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(azurePoll):
		}
	}
}

// azureQuote quotes by the key that the claims name.
func azureQuote(t transport.TPM, e *evidence.AzureEvidence, digest []byte) error {
	resp, err := tpm2.ReadPublic{ObjectHandle: azureKeyHandle}.Execute(t)
	if err != nil {
		return fmt.Errorf("reading the attestation key at %#x: %w", uint32(azureKeyHandle), err)
	}
	key := &tpmKey{at: azureKeyHandle, name: resp.Name}
	plain, err := quote(t, key, digest)
	if err != nil {
		return err
	}
	e.Message, e.Registers = plain.Message, plain.Registers
	e.Signature, err = evidence.ParseTPMSignature(plain.Signature)
	return err
}

// readNV reads a whole index with the owner's empty authorisation.
func readNV(t transport.TPM, index tpm2.TPMHandle) ([]byte, error) {
	pub, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("NV index %#x: %w", uint32(index), err)
	}
	public, err := pub.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("NV index %#x: %w", uint32(index), err)
	}
	if public.DataSize > evidence.MaxHCLReportSize {
		return nil, fmt.Errorf("NV index %#x has %d bytes, at most %d are read", uint32(index), public.DataSize, evidence.MaxHCLReportSize)
	}
	out := make([]byte, 0, public.DataSize)
	for len(out) < int(public.DataSize) {
		resp, err := tpm2.NVRead{
			AuthHandle: ownerAuth(), NVIndex: tpm2.NamedHandle{Handle: index, Name: pub.NVName},
			Size: min(nvBatch, public.DataSize-uint16(len(out))), Offset: uint16(len(out)),
		}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("reading NV index %#x: %w", uint32(index), err)
		}
		if len(resp.Data.Buffer) == 0 {
			return nil, fmt.Errorf("reading NV index %#x: it ends at byte %d", uint32(index), len(out))
		}
		out = append(out, resp.Data.Buffer...)
	}
	return out, nil
}

func ownerAuth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
}

// writeNV writes data into an index of exactly its size, which is made anew where there
// is none or one of another size.
func writeNV(t transport.TPM, index tpm2.TPMHandle, data []byte) error {
	fail := func(err error) error { return fmt.Errorf("writing NV index %#x: %w", uint32(index), err) }
	pub, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	known := err == nil
	if err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
		return fail(err)
	}
	if known {
		public, err := pub.NVPublic.Contents()
		if err != nil {
			return fail(err)
		}
		if int(public.DataSize) != len(data) {
			_, err := tpm2.NVUndefineSpace{AuthHandle: ownerAuth(), NVIndex: tpm2.NamedHandle{Handle: index, Name: pub.NVName}}.Execute(t)
			if err != nil {
				return fail(err)
			}
			known = false
		}
	}
	if !known {
		_, err := tpm2.NVDefineSpace{AuthHandle: ownerAuth(), PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true}, DataSize: uint16(len(data)),
		})}.Execute(t)
		if err != nil {
			return fail(err)
		}
		if pub, err = (tpm2.NVReadPublic{NVIndex: index}).Execute(t); err != nil {
			return fail(err)
		}
	}
	_, err = tpm2.NVWrite{AuthHandle: ownerAuth(), NVIndex: tpm2.NamedHandle{Handle: index, Name: pub.NVName}, Data: tpm2.TPM2BMaxNVBuffer{Buffer: data}}.Execute(t)
	if err != nil {
		return fail(err)
	}
	return nil
}

var _ InitDataRecorder = (*azureAttester)(nil)
