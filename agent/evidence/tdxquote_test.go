// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tdx-guest/abi"
	tdxpb "github.com/google/go-tdx-guest/proto/tdx"
	"github.com/google/go-tdx-guest/testing/testdata"

	"github.com/casemate/casemate/agent/evidence"
)

// TestTDXQuoteAgainstGoogle reads a quote of real hardware, and compares each field with
// what another parser finds.
func TestTDXQuoteAgainstGoogle(t *testing.T) {
	ours, err := evidence.ParseTDXQuote(realQuote())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := abi.QuoteToProto(realQuote())
	if err != nil {
		t.Fatal(err)
	}
	theirs, ok := parsed.(*tdxpb.QuoteV4)
	if !ok {
		t.Fatalf("oracle parsed %T", parsed)
	}
	body, data := theirs.GetTdQuoteBody(), theirs.GetSignedData()
	qe := data.GetCertificationData().GetQeReportCertificationData()
	for name, pair := range map[string][2][]byte{
		"tee_tcb_svn":      {ours.Body.TCBSVN(), body.GetTeeTcbSvn()},
		"mr_seam":          {ours.Body.MRSeam(), body.GetMrSeam()},
		"mr_signer_seam":   {ours.Body.MRSignerSeam(), body.GetMrSignerSeam()},
		"attributes":       {binary.LittleEndian.AppendUint64(nil, uint64(ours.Body.Attributes())), body.GetTdAttributes()},
		"seam_attributes":  {binary.LittleEndian.AppendUint64(nil, ours.Body.SeamAttributes()), body.GetSeamAttributes()},
		"xfam":             {binary.LittleEndian.AppendUint64(nil, ours.Body.XFAM()), body.GetXfam()},
		"mr_td":            {ours.Body.MRTD(), body.GetMrTd()},
		"mr_config_id":     {ours.Body.MRConfigID(), body.GetMrConfigId()},
		"mr_owner":         {ours.Body.MROwner(), body.GetMrOwner()},
		"mr_owner_config":  {ours.Body.MROwnerConfig(), body.GetMrOwnerConfig()},
		"rtmr0":            {ours.Body.RTMR(0), body.GetRtmrs()[0]},
		"rtmr3":            {ours.Body.RTMR(3), body.GetRtmrs()[3]},
		"report_data":      {ours.Body.ReportData(), body.GetReportData()},
		"signature":        {ours.Signature, data.GetSignature()},
		"key":              {ours.AttestationKey, data.GetEcdsaAttestationKey()},
		"qe vendor":        {ours.QEVendorID(), theirs.GetHeader().GetQeVendorId()},
		"qe mrsigner":      {ours.QEReport.MRSigner(), qe.GetQeReport().GetMrSigner()},
		"qe attributes":    {ours.QEReport.Attributes(), qe.GetQeReport().GetAttributes()},
		"qe report data":   {ours.QEReport.ReportData(), qe.GetQeReport().GetReportData()},
		"qe signature":     {ours.QESignature, qe.GetQeReportSignature()},
		"qe auth data":     {ours.QEAuthData, qe.GetQeAuthData().GetData()},
		"pck chain":        {ours.PCKChain, bytes.TrimSuffix(qe.GetPckCertificateChainData().GetPckCertChain(), []byte{0})},
		"qe isv":           {[]byte(fmt.Sprint(ours.QEReport.ISVProdID(), ours.QEReport.ISVSVN())), []byte(fmt.Sprint(qe.GetQeReport().GetIsvProdId(), qe.GetQeReport().GetIsvSvn()))},
		"nothing of 1.5":   {ours.Body.MRServiceTD(), nil},
		"qe misc select":   {binary.LittleEndian.AppendUint32(nil, qe.GetQeReport().GetMiscSelect()), ours.QEReport.MiscSelect()},
		"signed is prefix": {ours.Signed, realQuote()[:632]},
	} {
		if !bytes.Equal(pair[0], pair[1]) {
			t.Errorf("%s: %x, oracle has %x", name, pair[0], pair[1])
		}
	}
}

// realQuote is without the text that Google put behind it to test their own parser.
func realQuote() []byte {
	return bytes.TrimSuffix(testdata.RawQuote, []byte("\nextra bytes(only for testing purpose)\n"))
}

// asVersion5 re-frames a version 4 quote, whose signatures then no longer hold.
func asVersion5(v4 []byte, kind uint16, size uint32, extra int) []byte {
	v5 := binary.LittleEndian.AppendUint16(nil, 5)
	v5 = append(v5, v4[2:48]...)
	v5 = binary.LittleEndian.AppendUint16(v5, kind)
	v5 = binary.LittleEndian.AppendUint32(v5, size)
	return slices.Concat(v5, v4[48:632], bytes.Repeat([]byte{7}, extra), v4[632:])
}

func TestTDXQuoteVersion5(t *testing.T) {
	for _, tc := range []struct {
		kind  uint16
		size  uint32
		extra int
	}{{2, 584, 0}, {3, 648, 64}} {
		q, err := evidence.ParseTDXQuote(asVersion5(realQuote(), tc.kind, tc.size, tc.extra))
		if err != nil {
			t.Fatalf("body type %d: %v", tc.kind, err)
		}
		if q.Version() != 5 || len(q.Signed) != 54+int(tc.size) || !bytes.Equal(q.Body.ReportData(), realQuote()[568:632]) {
			t.Errorf("body type %d: version %d, %d bytes signed", tc.kind, q.Version(), len(q.Signed))
		}
		if has := q.Body.MRServiceTD() != nil; has != (tc.kind == 3) {
			t.Errorf("body type %d: has service TD hash: %v", tc.kind, has)
		}
	}
}

func TestTDXQuoteHostile(t *testing.T) {
	edit := func(at int, b ...byte) []byte {
		raw := bytes.Clone(realQuote())
		copy(raw[at:], b)
		return raw
	}
	for name, tc := range map[string]struct {
		raw  []byte
		want string
	}{
		"empty":                      {nil, "too short for a header"},
		"version 3":                  {edit(0, 3), "version 3"},
		"version 6":                  {edit(0, 6), "version 6"},
		"P-384 key":                  {edit(2, 3), "attestation key type 3"},
		"SGX":                        {edit(4, 0), "TEE type 0x0"},
		"SGX body in version 5":      {asVersion5(realQuote(), 1, 384, 0), "body type 1"},
		"unknown body":               {asVersion5(realQuote(), 4, 584, 0), "body type 4"},
		"body that lies":             {asVersion5(realQuote(), 3, 584, 0), "584 bytes, want 648"},
		"body past the end":          {realQuote()[:600], "too short for a body"},
		"no signature data":          {realQuote()[:632], "signature data size"},
		"signature data past end":    {edit(632, 0xFF, 0xFF, 0xFF, 0xFF), "want 4294967295"},
		"signature data cut":         {edit(632, 10, 0, 0, 0), "bytes other than zero"},
		"certification type 5 first": {edit(636+128, 5), "certification data type 5"},
		"payload behind the quote":   {append(bytes.Clone(realQuote()), 1), "bytes other than zero"},
		"text behind a real quote":   {testdata.RawQuote, "bytes other than zero"},
		"over the cap":               {make([]byte, evidence.MaxTDXQuoteSize+1), "at most"},
	} {
		if _, err := evidence.ParseTDXQuote(tc.raw); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func FuzzTDXQuote(f *testing.F) {
	f.Add(realQuote())
	f.Add(asVersion5(realQuote(), 3, 648, 64))
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := evidence.ParseTDXQuote(raw)
		if err != nil {
			return
		}
		if len(q.Signature) != 64 || len(q.AttestationKey) != 64 || len(q.QESignature) != 64 || len(q.Body.RTMR(3)) != 48 || len(q.QEReport.ReportData()) != 64 {
			t.Fatal("a part has another size")
		}
	})
}
