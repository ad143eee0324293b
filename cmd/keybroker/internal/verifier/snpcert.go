// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// keyKind is which of a chip's keys signed: its own (VCEK) or one that AMD gave to a
// cloud provider (VLEK).
type keyKind string

const (
	vcek keyKind = "VCEK"
	vlek keyKind = "VLEK"
)

// Arcs below 1.3.6.1.4.1.3704.1, AMD publication 57230, table "VCEK certificate".
var amdArc = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}

const (
	arcBootloader = "3.1"
	arcTEE        = "3.2"
	arcSNP        = "3.3"
	arcMicrocode  = "3.8"
	arcFMC        = "3.9"
	arcHWID       = "4"
	arcCSPID      = "5"
)

// vek is a versioned endorsement key's certificate with what AMD certifies in it.
type vek struct {
	cert *x509.Certificate
	kind keyKind
	tcb  owner.TCB
	hwid []byte // 64 bytes, 8 on Turin; nil for a VLEK
}

// parseVEK takes a certificate apart. Nothing in it is believed before its chain is.
func parseVEK(der []byte, product evidence.SNPProduct) (vek, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return vek{}, fmt.Errorf("parsing endorsement key certificate: %w", err)
	}
	v := vek{cert: cert}
	ext := amdExtensions(cert)
	hwid, hasHWID := ext[arcHWID]
	_, hasCSPID := ext[arcCSPID]
	switch {
	case hasHWID && !hasCSPID:
		v.kind = vcek
		if v.hwid, err = hwidOf(hwid); err != nil {
			return vek{}, err
		}
	case hasCSPID && !hasHWID:
		v.kind = vlek
	default:
		return vek{}, errors.New("endorsement key certificate has not exactly one of hardware id and provider id")
	}
	for _, part := range []struct {
		arc string
		to  *uint8
	}{
		{arcBootloader, &v.tcb.Bootloader}, {arcTEE, &v.tcb.TEE}, {arcSNP, &v.tcb.SNP}, {arcMicrocode, &v.tcb.Microcode},
	} {
		if *part.to, err = level(ext, part.arc); err != nil {
			return vek{}, err
		}
	}
	// The FMC has a level of its own from Turin on; before, the extension does not exist.
	if product == evidence.Turin {
		if v.tcb.FMC, err = level(ext, arcFMC); err != nil {
			return vek{}, err
		}
	}
	return v, nil
}

// amdExtensions returns AMD's extensions by the end of their OID. The x509 parser
// refuses certificates with two extensions of one OID.
func amdExtensions(cert *x509.Certificate) map[string][]byte {
	ext := make(map[string][]byte)
	for _, e := range cert.Extensions {
		if len(e.Id) > len(amdArc) && e.Id[:len(amdArc)].Equal(amdArc) {
			ext[e.Id[len(amdArc):].String()] = e.Value
		}
	}
	return ext
}

func level(ext map[string][]byte, arc string) (uint8, error) {
	value, ok := ext[arc]
	if !ok {
		return 0, fmt.Errorf("endorsement key certificate lacks extension %v.%s", amdArc, arc)
	}
	var n int
	rest, err := asn1.Unmarshal(value, &n)
	if err != nil || len(rest) != 0 || n < 0 || n > 255 {
		return 0, fmt.Errorf("endorsement key certificate: extension %v.%s is not an integer from 0 to 255", amdArc, arc)
	}
	return uint8(n), nil
}

// hwidOf reads the hardware id, which AMD puts into the extension as bare bytes;
// wrapped as an octet string it is taken too.
func hwidOf(value []byte) ([]byte, error) {
	bare := func() bool { return len(value) == 64 || len(value) == 8 }
	if !bare() {
		var wrapped []byte
		if rest, err := asn1.Unmarshal(value, &wrapped); err == nil && len(rest) == 0 {
			value = wrapped
		}
	}
	if !bare() {
		return nil, fmt.Errorf("endorsement key certificate: hardware id is %d bytes, want 64, or 8 on Turin", len(value))
	}
	return value, nil
}
