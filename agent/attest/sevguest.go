// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/casemate/casemate/agent/evidence"
)

// The interface of Linux's SNP guest driver (include/uapi/linux/sev-guest.h,
// Documentation/virt/coco/sev-guest.rst), which kernels before 6.7 have alone.
const (
	sevGuestPath = "/dev/sev-guest"

	// snpGetExtReport is _IOWR('S', 2, struct snp_guest_request_ioctl).
	snpGetExtReport = 0xC0205302
	// sevMessageVersion is that of the request to the firmware, AMD 56860.
	sevMessageVersion = 1
	// sevInvalidLen is SNP_GUEST_VMM_ERR_INVALID_LEN: the host's certificates need more room.
	sevInvalidLen = 1

	sevResponseSize = 4000
)

// sevRequest is struct snp_guest_request_ioctl, 32 bytes.
type sevRequest struct {
	version           uint8
	_                 [7]byte
	request, response unsafe.Pointer // *sevReportRequest, *sevReportResponse
	firmware, host    uint32         // the two halves of exitinfo2, written by the kernel
}

// sevReportRequest is struct snp_ext_report_req, 112 bytes.
type sevReportRequest struct {
	data      [evidence.ReportDataSize]byte
	vmpl      uint32
	_         [28]byte
	certs     unsafe.Pointer // to certsSize bytes, whole pages
	certsSize uint32         // written by the kernel when it was too small
	_         [4]byte
}

// sevReportResponse is struct snp_report_resp with AMD 56860's MSG_REPORT_RSP in it.
type sevReportResponse struct {
	status uint32
	size   uint32
	_      [24]byte
	report [sevResponseSize - 32]byte
}

// sevIoctl passes a request to the kernel, which writes into what it points to.
type sevIoctl func(command uintptr, request *sevRequest) error

func sevGuestIoctl(command uintptr, request *sevRequest) error {
	device, err := os.OpenFile(sevGuestPath, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, device.Fd(), command, uintptr(unsafe.Pointer(request)))
	err = device.Close()
	if errno != 0 {
		return errno
	}
	return err
}

// sevGuest is the way to SNP reports without configfs-tsm. The report and who signs it
// are the same.
type sevGuest struct{ ioctl sevIoctl }

// report also returns the host's certificate table. The buffer for it is as large as the
// kernel takes, so there is nothing to ask for twice.
func (g sevGuest) report(ctx context.Context, data [evidence.ReportDataSize]byte) (report, certs []byte, err error) {
	if ctx.Err() != nil {
		return nil, nil, fmt.Errorf("asking %s for a report: %w", sevGuestPath, context.Cause(ctx))
	}
	table, response := new([maxCertTable]byte), new(sevReportResponse)
	ask := &sevReportRequest{data: data, vmpl: 0, certs: unsafe.Pointer(table), certsSize: maxCertTable}
	request := &sevRequest{version: sevMessageVersion, request: unsafe.Pointer(ask), response: unsafe.Pointer(response)}
	if err := g.ioctl(snpGetExtReport, request); err != nil {
		return nil, nil, fmt.Errorf("asking %s for a report: %w", sevGuestPath, sevError(err, request, ask))
	}
	switch {
	case request.firmware != 0 || request.host != 0:
		return nil, nil, fmt.Errorf("asking %s for a report: %w", sevGuestPath, sevError(errors.New("no error of the kernel"), request, ask))
	case response.status != 0:
		return nil, nil, fmt.Errorf("asking %s for a report: the firmware answered status %#x", sevGuestPath, response.status)
	case response.size != evidence.SNPReportSize:
		return nil, nil, fmt.Errorf("asking %s for a report: got %d bytes, want %d", sevGuestPath, response.size, evidence.SNPReportSize)
	}
	return response.report[:evidence.SNPReportSize], table[:], nil
}

// sevError says whose error it was.
func sevError(err error, request *sevRequest, ask *sevReportRequest) error {
	switch {
	case request.host == sevInvalidLen:
		return fmt.Errorf("%w: the host's certificates take %d bytes, at most %d allowed", err, ask.certsSize, maxCertTable)
	case request.host != 0:
		return fmt.Errorf("%w: error %d of the host", err, request.host)
	case request.firmware != 0:
		return fmt.Errorf("%w: error %#x of the firmware", err, request.firmware)
	}
	return err
}
