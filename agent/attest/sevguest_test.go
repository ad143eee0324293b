// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-sev-guest/client/linuxabi"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
)

// fakeSEVGuest is the driver below the ioctl: it writes where the request says.
type fakeSEVGuest struct {
	signer *snptest.Signer
	certs  []byte
	calls  int
	bytes  [2][]byte // the request and what it points to, as they came in
	spoil  func(q *sevRequest, a *sevReportRequest, r *sevReportResponse) error
}

func (k *fakeSEVGuest) ioctl(command uintptr, q *sevRequest) error {
	k.calls++
	ask, response := (*sevReportRequest)(q.request), (*sevReportResponse)(q.response)
	k.bytes[0] = bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(q)), unsafe.Sizeof(*q)))
	k.bytes[1] = bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(ask)), unsafe.Sizeof(*ask)))
	if command != snpGetExtReport || q.version != 1 || ask.certsSize != 16<<10 {
		return syscall.EINVAL
	}
	raw, err := k.signer.Report(ask.data)
	if err != nil {
		return err
	}
	response.size = uint32(copy(response.report[:], raw))
	copy(unsafe.Slice((*byte)(ask.certs), ask.certsSize), k.certs)
	if k.spoil != nil {
		return k.spoil(q, ask, response)
	}
	return nil
}

func newSEVGuest(t *testing.T) *fakeSEVGuest {
	t.Helper()
	signer, err := snptest.New(snptest.Params{HostData: strings.Repeat("a5", 32)})
	if err != nil {
		t.Fatal(err)
	}
	return &fakeSEVGuest{signer: signer, certs: certTable(entry{guidVCEK, signer.VCEK.Raw}, entry{guidASK, signer.ASK.Raw})}
}

// config is a machine whose kernel has no configfs-tsm.
func (k *fakeSEVGuest) config() Config {
	return Config{openTSM: func() (configfsi.Client, error) { return nil, fs.ErrNotExist }, sevGuest: k.ioctl}
}

func TestSNPEvidenceThroughTheDevice(t *testing.T) {
	kernel := newSEVGuest(t)
	a, err := Detect(kernel.config())
	if err != nil || a.TEE() != evidence.SNP {
		t.Fatalf("detected %v, %v", a, err)
	}
	data := evidence.WorkloadReportData([]byte("x"))
	text, err := a.Evidence(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	e, err := evidence.ParseSNPEvidence(text)
	if err != nil {
		t.Fatal(err)
	}
	want := data.Bytes64()
	if !bytes.Equal(e.Report.ReportData(), want[:]) || len(e.Certs) != 2 || !bytes.Equal(e.Find(evidence.SNPCertVCEK), kernel.signer.VCEK.Raw) {
		t.Errorf("bound to %x, %d certificates", e.Report.ReportData(), len(e.Certs))
	}
	bound, err := a.(InitDataReader).BoundInitData(t.Context())
	if err != nil || !bytes.Equal(bound, bytes.Repeat([]byte{0xa5}, 32)) {
		t.Errorf("HOST_DATA is %x, %v", bound, err)
	}
	kernel.certs = nil
	if text, err = a.Evidence(t.Context(), data); err != nil || !bytes.HasSuffix(text, []byte(`"cert_chain":null}`)) {
		t.Errorf("without certificates: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := kernel.calls
	if _, err := a.Evidence(ctx, data); !errors.Is(err, context.Canceled) || kernel.calls != calls {
		t.Errorf("after its context: %v, %d calls", err, kernel.calls-calls)
	}
	if _, err := a.Evidence(t.Context(), evidence.ReportData{}); !errors.Is(err, errNoReportData) {
		t.Errorf("evidence bound to nothing: %v", err)
	}
}

// The numbers and bytes are the kernel's (include/uapi/linux/sev-guest.h), and those that
// go-sev-guest has.
func TestSEVGuestOnTheWire(t *testing.T) {
	if iowr := uint32(3<<30 | 32<<16 | 'S'<<8 | 2); snpGetExtReport != iowr || snpGetExtReport != linuxabi.IocSnpGetExtendedReport {
		t.Errorf("command %#x, want %#x", snpGetExtReport, iowr)
	}
	var q sevRequest
	var a sevReportRequest
	var r sevReportResponse
	for name, tt := range map[string][2]uintptr{
		"request": {unsafe.Sizeof(q), 32}, "request data": {unsafe.Offsetof(q.request), 8}, "response data": {unsafe.Offsetof(q.response), 16},
		"fw_error": {unsafe.Offsetof(q.firmware), 24}, "vmm_error": {unsafe.Offsetof(q.host), 28},
		"report request": {unsafe.Sizeof(a), 112}, "vmpl": {unsafe.Offsetof(a.vmpl), 64}, "certs_address": {unsafe.Offsetof(a.certs), 96}, "certs_len": {unsafe.Offsetof(a.certsSize), 104},
		"response": {unsafe.Sizeof(r), 4000}, "report size": {unsafe.Offsetof(r.size), 4}, "report": {unsafe.Offsetof(r.report), 32},
		"go-sev-guest's report request": {unsafe.Sizeof(linuxabi.SnpExtendedReportReqABI{}), 112}, "go-sev-guest's response": {unsafe.Sizeof(linuxabi.SnpReportRespABI{}), 4000},
	} {
		if tt[0] != tt[1] {
			t.Errorf("%s: %d, want %d", name, tt[0], tt[1])
		}
	}

	kernel := newSEVGuest(t)
	data := [64]byte{0: 1, 63: 2}
	if _, _, err := (sevGuest{kernel.ioctl}).report(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	clear(kernel.bytes[0][8:24]) // addresses
	clear(kernel.bytes[1][96:104])
	if got, want := hex.EncodeToString(kernel.bytes[0]), "01"+strings.Repeat("00", 31); got != want {
		t.Errorf("request %s, want %s", got, want)
	}
	if got, want := hex.EncodeToString(kernel.bytes[1]), "01"+strings.Repeat("00", 62)+"02"+strings.Repeat("00", 40)+"00400000"+strings.Repeat("00", 4); got != want {
		t.Errorf("report request %s, want %s", got, want)
	}
}

func TestSEVGuestRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(q *sevRequest, a *sevReportRequest, r *sevReportResponse) error
		want  string
	}{
		{"the host's certificates do not fit", func(q *sevRequest, a *sevReportRequest, _ *sevReportResponse) error {
			q.host, a.certsSize = 1, 1<<20
			return syscall.EIO
		}, "take 1048576 bytes, at most 16384"},
		{"the host is busy", func(q *sevRequest, _ *sevReportRequest, _ *sevReportResponse) error {
			q.host = 2
			return syscall.EAGAIN
		}, "error 2 of the host"},
		{"the firmware refuses", func(q *sevRequest, _ *sevReportRequest, _ *sevReportResponse) error {
			q.firmware = 0x16
			return syscall.EIO
		}, "error 0x16 of the firmware"},
		{"an error without an errno", func(q *sevRequest, _ *sevReportRequest, _ *sevReportResponse) error {
			q.firmware = 0x16
			return nil
		}, "error 0x16 of the firmware"},
		{"a guest without a key", func(*sevRequest, *sevReportRequest, *sevReportResponse) error { return syscall.ENOTTY }, "inappropriate ioctl"},
		{"a status in the answer", func(_ *sevRequest, _ *sevReportRequest, r *sevReportResponse) error {
			r.status = 0x16
			return nil
		}, "status 0x16"},
		{"nothing was written", func(_ *sevRequest, _ *sevReportRequest, r *sevReportResponse) error {
			*r = sevReportResponse{}
			return nil
		}, "got 0 bytes, want 1184"},
		{"a longer report", func(_ *sevRequest, _ *sevReportRequest, r *sevReportResponse) error {
			r.size = 1 << 31
			return nil
		}, "want 1184"},
		{"a report for another request", func(_ *sevRequest, _ *sevReportRequest, r *sevReportResponse) error {
			r.report[0x50] ^= 1
			return nil
		}, "bound to other data"},
		{"a report of version 6", func(_ *sevRequest, _ *sevReportRequest, r *sevReportResponse) error {
			r.report[0] = 6
			return nil
		}, "report version is 6"},
		{"a certificate behind the table", func(_ *sevRequest, a *sevReportRequest, _ *sevReportResponse) error {
			table := unsafe.Slice((*byte)(a.certs), a.certsSize)
			table[guidSize+2] = 0xFF // the first entry's offset
			return nil
		}, "certificate table of the host"},
		{"a table without an end", func(_ *sevRequest, a *sevReportRequest, _ *sevReportResponse) error {
			table := unsafe.Slice((*byte)(a.certs), a.certsSize)
			for at := 0; at+certEntrySize <= len(table); at += certEntrySize {
				copy(table[at:], certTable(entry{guidVCEK, []byte{1}})[:certEntrySize])
			}
			return nil
		}, "certificate table of the host"},
	} {
		kernel := newSEVGuest(t)
		a, err := Detect(kernel.config())
		if err != nil {
			t.Fatal(err)
		}
		kernel.spoil = tt.spoil
		if _, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// The device is the second way, and no way around what configfs-tsm says.
func TestSEVGuestIsAskedOnlyWithoutConfigfs(t *testing.T) {
	kernel := newSEVGuest(t)
	denied := kernel.config()
	denied.openTSM = func() (configfsi.Client, error) { return nil, fs.ErrPermission }
	refuses := kernel.config()
	refuses.TSM = (&fakeKernel{provider: "arm_cca_guest"}).client()
	absent := kernel.config()
	absent.sevGuest = func(uintptr, *sevRequest) error { return fs.ErrNotExist }
	tdx := kernel.config()
	tdx.TEE = evidence.TDX
	for _, tt := range []struct {
		name  string
		cfg   Config
		calls int
		want  string
	}{
		{"configfs may not be read", denied, 0, "permission denied"},
		{"another provider in configfs", refuses, 0, "arm_cca_guest"},
		{"no device either", absent, 0, sevGuestPath},
		{"another TEE than configured", tdx, 1, "found snp"},
	} {
		kernel.calls = 0
		a, err := Detect(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || kernel.calls != tt.calls {
			t.Errorf("%s: got %v, %v after %d calls, want %q", tt.name, a, err, kernel.calls, tt.want)
		}
	}
	kernel.spoil = func(*sevRequest, *sevReportRequest, *sevReportResponse) error { return syscall.EIO }
	if a, err := Detect(kernel.config()); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("a device that makes no report: %v, %v", a, err)
	}
}
