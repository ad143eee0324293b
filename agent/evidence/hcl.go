// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-json-experiment/json"
)

const (
	// MaxHCLReportSize is above the size of the NV index that holds the report.
	MaxHCLReportSize = 16 << 10

	hclMagic      = "HCLA"
	hclHeaderSize = 32
	// hclHardwareSize is room for an SNP report; a TDREPORT is shorter.
	hclHardwareSize = SNPReportSize
	hclClaimsHead   = 20
	tdReportSize    = 1024

	hclTypeSNP    = 2
	hclTypeTDX    = 4
	hclHashSHA256 = 1

	// hclAttestationKey is what the vTPM's signing key is called among the claims.
	hclAttestationKey = "HCLAkPub"
)

// HCLReport is what Azure's paravisor keeps in the vTPM's NV index 0x01400001: a report of
// the hardware, and claims whose SHA-256 that report carries in the first 32 bytes of its
// report data. Layout, little-endian: a header of 32 bytes that begins with "HCLA", 1184
// bytes for the report, then five u32 (size, version, report type, hash type, length of
// the claims) and the claims as JSON (azure-cvm-tooling, az-cvm-vtpm; Azure's guest
// attestation SDK).
type HCLReport struct {
	// TEE is AzSNPvTPM or AzTDXvTPM.
	TEE TEE
	// Hardware is the SNP report, 1184 bytes, or the TDREPORT, 1024 bytes. A TDREPORT has
	// no signature that anybody else can check.
	Hardware []byte
	// Claims is the JSON that Hardware is bound to, as it stands there.
	Claims []byte
}

// ParseHCLReport reads the frame; the claims are not looked into.
func ParseHCLReport(raw []byte) (HCLReport, error) {
	h, err := parseHCL(raw)
	if err != nil {
		return HCLReport{}, fmt.Errorf("parsing HCL report: %w", err)
	}
	return h, nil
}

func parseHCL(raw []byte) (h HCLReport, err error) {
	if len(raw) > MaxHCLReportSize {
		return h, fmt.Errorf("%d bytes, at most %d allowed", len(raw), MaxHCLReportSize)
	}
	c := &cutter{rest: raw}
	header := c.take("header", hclHeaderSize)
	if c.err == nil && !bytes.HasPrefix(header, []byte(hclMagic)) {
		return h, fmt.Errorf("it begins with %q, want %q", header[:len(hclMagic)], hclMagic)
	}
	hardware := c.take("hardware report", hclHardwareSize)
	head := c.take("head of the claims", hclClaimsHead)
	if c.err != nil {
		return h, c.err
	}
	le := binary.LittleEndian // behind size and version
	kind, hash, size := le.Uint32(head[8:]), le.Uint32(head[12:]), le.Uint32(head[16:])
	if h.Claims = c.take("claims", size); c.err != nil {
		return HCLReport{}, c.err
	}
	if hash != hclHashSHA256 {
		return HCLReport{}, fmt.Errorf("hash type %d, want %d (SHA-256)", hash, hclHashSHA256)
	}
	// What follows is the rest of the NV index: zeros.
	if len(bytes.Trim(c.rest, "\x00")) != 0 {
		return HCLReport{}, errors.New("bytes behind the claims")
	}
	switch kind {
	case hclTypeSNP:
		h.TEE, h.Hardware = AzSNPvTPM, hardware
	case hclTypeTDX:
		h.TEE, h.Hardware = AzTDXvTPM, hardware[:tdReportSize]
	default:
		return HCLReport{}, fmt.Errorf("report type %d, want %d (SNP) or %d (TDX)", kind, hclTypeSNP, hclTypeTDX)
	}
	return h, nil
}

// Binding is what the hardware's report data must be: SHA-256 over the claims, then zeros.
func (h HCLReport) Binding() ReportData {
	sum := sha256.Sum256(h.Claims)
	var r ReportData
	r.size = copy(r.bytes[:], sum[:])
	return r
}

// HCLClaims are the members that a relying party needs; there are more.
type HCLClaims struct {
	// AttestationKey is the DER SubjectPublicKeyInfo of the key that signs quotes.
	AttestationKey []byte
	// UserData is what the guest had put into NV index 0x01400002 when the report was
	// made, with zeros behind it; empty in reports of older paravisors.
	UserData []byte
}

// ReadClaims reads h.Claims. Repeated members, two attestation keys and keys that are not
// RSA of 2048 to 4096 bits are errors; members that are not needed are passed over.
func (h HCLReport) ReadClaims() (HCLClaims, error) {
	var doc struct {
		Keys []struct {
			ID       string `json:"kid"`
			Type     string `json:"kty"`
			Exponent string `json:"e"`
			Modulus  string `json:"n"`
		} `json:"keys"`
		UserData string `json:"user-data"`
	}
	fail := func(err error) (HCLClaims, error) {
		return HCLClaims{}, fmt.Errorf("parsing the claims of an HCL report: %w", err)
	}
	if err := json.Unmarshal(h.Claims, &doc); err != nil {
		return fail(errors.New("malformed JSON"))
	}
	var out HCLClaims
	for _, k := range doc.Keys {
		if k.ID != hclAttestationKey {
			continue
		}
		if out.AttestationKey != nil {
			return fail(fmt.Errorf("two keys %s", hclAttestationKey))
		}
		if k.Type != "RSA" {
			return fail(fmt.Errorf("key %s of type %.16q, want RSA", hclAttestationKey, k.Type))
		}
		der, err := rsaKeyInfo(k.Modulus, k.Exponent)
		if err != nil {
			return fail(fmt.Errorf("key %s: %w", hclAttestationKey, err))
		}
		out.AttestationKey = der
	}
	if out.AttestationKey == nil {
		return fail(fmt.Errorf("no key %s", hclAttestationKey))
	}
	var err error
	if out.UserData, err = hex.DecodeString(doc.UserData); err != nil || len(out.UserData) > ReportDataSize {
		return fail(fmt.Errorf("user-data: want hex of at most %d bytes", ReportDataSize))
	}
	return out, nil
}

// rsaKeyInfo builds the canonical DER of a key whose parts are base64url without padding.
func rsaKeyInfo(modulus, exponent string) ([]byte, error) {
	n, err := decodeB64(base64.RawURLEncoding, modulus)
	if err != nil {
		return nil, err
	}
	e, err := decodeB64(base64.RawURLEncoding, exponent)
	if err != nil {
		return nil, err
	}
	if len(n) > 512 || len(e) > 4 {
		return nil, errors.New("over 4096 bits")
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, errors.New("not an RSA key")
	}
	_, err = ParseTPMKey(der)
	return der, err
}
