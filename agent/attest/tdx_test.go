// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tdx-guest/abi"
	pb "github.com/google/go-tdx-guest/proto/tdx"
	"github.com/google/go-tdx-guest/testing/testdata"

	"github.com/casemate/casemate/agent/evidence"
)

// quoteV5 puts the body of a version 4 quote into version 5's frame.
func quoteV5(v4 []byte, bodySize uint32) []byte {
	out := bytes.Clone(v4[:quoteHeaderSize])
	out[0] = 5
	out = binary.LittleEndian.AppendUint16(out, 2)
	out = binary.LittleEndian.AppendUint32(out, bodySize)
	return append(out, v4[quoteHeaderSize:]...)
}

// tdxKernel quotes with a recorded quote that says what it is asked to say; its
// signature no longer holds, which only a verifier would see.
func tdxKernel(convert func([]byte) []byte) *fakeKernel {
	return &fakeKernel{provider: tdxProvider, outblob: func(in []byte) ([]byte, error) {
		quote := bytes.Clone(testdata.RawQuote)
		copy(quote[quoteHeaderSize+bodyReportData:], in)
		return convert(quote), nil
	}}
}

func TestTDXEvidence(t *testing.T) {
	parsed, err := abi.QuoteToProto(testdata.RawQuote)
	if err != nil {
		t.Fatal(err)
	}
	recorded := parsed.(*pb.QuoteV4).GetTdQuoteBody()
	for name, convert := range map[string]func([]byte) []byte{
		"version 4":         func(q []byte) []byte { return q },
		"version 5, TD 1.0": func(q []byte) []byte { return quoteV5(q, bodySize10) },
		"version 5, TD 1.5": func(q []byte) []byte { return quoteV5(q, bodySize15) },
	} {
		kernel := tdxKernel(convert)
		client := kernel.client()
		a := mustDetect(t, client)
		data := evidence.WorkloadReportData([]byte("x"))
		text, err := a.Evidence(t.Context(), data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e, err := evidence.ParseTDXEvidence(text)
		if err != nil || e.EventLog != nil || a.TEE() != evidence.TDX {
			t.Errorf("%s: %v, %v", name, e, err)
		}
		want := data.Bytes64()
		if !bytes.Contains(e.Quote, want[:]) {
			t.Errorf("%s: quote is not bound to the data", name)
		}
		bound, err := a.(InitDataReader).BoundInitData(t.Context())
		if err != nil || !bytes.Equal(bound, recorded.GetMrConfigId()) || len(bound) != 48 {
			t.Errorf("%s: MRCONFIGID is %x, want %x (%v)", name, bound, recorded.GetMrConfigId(), err)
		}
		if len(kernel.privs) != 0 || len(client.Entries) != 0 {
			t.Errorf("%s: privilege levels %v, %d entries left", name, kernel.privs, len(client.Entries))
		}
	}
}

func TestMRConfigIDIsReadWhereIntelKeepsIt(t *testing.T) {
	kernel := tdxKernel(func(q []byte) []byte {
		copy(q[quoteHeaderSize+bodyMRConfigID:], bytes.Repeat([]byte{0xC1}, 48))
		return q
	})
	quote, err := kernel.outblob(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := abi.QuoteToProto(quote)
	if err != nil {
		t.Fatal(err)
	}
	if got := parsed.(*pb.QuoteV4).GetTdQuoteBody().GetMrConfigId(); !bytes.Equal(got, bytes.Repeat([]byte{0xC1}, 48)) {
		t.Errorf("another reader finds %x at MRCONFIGID", got)
	}
	bound, err := mustDetect(t, kernel.client()).(InitDataReader).BoundInitData(t.Context())
	if err != nil || !bytes.Equal(bound, bytes.Repeat([]byte{0xC1}, 48)) {
		t.Errorf("MRCONFIGID is %x, %v", bound, err)
	}
}

func TestTDXEvidenceRefuses(t *testing.T) {
	for _, tc := range []struct {
		name    string
		convert func([]byte) []byte
		want    string
	}{
		{"truncated quote", func(q []byte) []byte { return q[:600] }, "quote is 600 bytes"},
		{"no quote", func([]byte) []byte { return nil }, "quote is 0 bytes"},
		{"huge quote", func(q []byte) []byte { return append(q, make([]byte, evidence.MaxTDXQuoteSize)...) }, "at most 65536"},
		{"quote of version 3", func(q []byte) []byte { q[0] = 3; return q }, "version is 3"},
		{"SGX quote", func(q []byte) []byte { q[4] = 0; return q }, "TEE type 0x0"},
		{"version 5 with an SGX body", func(q []byte) []byte { return quoteV5(q, 384) }, "body is 384 bytes"},
		{"stale quote", func([]byte) []byte { return bytes.Clone(testdata.RawQuote) }, "bound to other data"},
	} {
		a := mustDetect(t, tdxKernel(tc.convert).client())
		if _, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
	}
	a := mustDetect(t, tdxKernel(slices.Clone).client())
	if _, err := a.Evidence(t.Context(), evidence.ReportData{}); err == nil {
		t.Error("made evidence bound to nothing")
	}
}
