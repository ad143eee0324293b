// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxSNPCertSize is the largest certificate table that the kernel passes on
	// (SEV_FW_BLOB_MAX_SIZE), so no certificate in it is larger.
	MaxSNPCertSize = 16 << 10

	// maxSNPCerts is twice the number of types that AMD's GHCB specification names.
	maxSNPCerts = 12
)

// SNPCertType says what a certificate of the host's table is for.
type SNPCertType string

// The types that Trustee names. SNPCertOther carries a GUID beside it.
const (
	SNPCertEmpty SNPCertType = "Empty"
	SNPCertARK   SNPCertType = "ARK"
	SNPCertASK   SNPCertType = "ASK"
	SNPCertVCEK  SNPCertType = "VCEK"
	SNPCertVLEK  SNPCertType = "VLEK"
	SNPCertCRL   SNPCertType = "CRL"
	SNPCertOther SNPCertType = "OTHER"
)

// SNPCert is one entry of the host's certificate table. The host chose it.
type SNPCert struct {
	Type SNPCertType
	GUID string // lower-case GUID, SNPCertOther only
	DER  []byte // 1 to MaxSNPCertSize bytes, not parsed
}

// Find returns the bytes of the certificate of that type, nil when there is none.
func (e SNPEvidence) Find(kind SNPCertType) []byte {
	for _, c := range e.Certs {
		if c.Type == kind {
			return c.DER
		}
	}
	return nil
}

// check refuses what the other direction would refuse.
func (c SNPCert) check() error {
	switch c.Type {
	case SNPCertEmpty, SNPCertARK, SNPCertASK, SNPCertVCEK, SNPCertVLEK, SNPCertCRL:
		if c.GUID != "" {
			return fmt.Errorf("certificate of type %s with a GUID", c.Type)
		}
	case SNPCertOther:
		if !isGUID(c.GUID) {
			return fmt.Errorf("certificate GUID %s is not 8-4-4-4-12 lower-case hex digits", quote(c.GUID))
		}
	default:
		return fmt.Errorf("unknown certificate type %s", quote(string(c.Type)))
	}
	if len(c.DER) == 0 || len(c.DER) > MaxSNPCertSize {
		return fmt.Errorf("certificate %s is %d bytes, want 1 to %d", c.Type, len(c.DER), MaxSNPCertSize)
	}
	return nil
}

func checkCerts(certs []SNPCert) error {
	if len(certs) > maxSNPCerts {
		return fmt.Errorf("%d certificates, at most %d allowed", len(certs), maxSNPCerts)
	}
	seen := make(map[string]bool)
	for _, c := range certs {
		if err := c.check(); err != nil {
			return err
		}
		// Two of a kind would let two readers pick different ones.
		key := string(c.Type) + c.GUID
		if seen[key] {
			return fmt.Errorf("two certificates of type %s", key)
		}
		seen[key] = true
	}
	return nil
}

func isGUID(s string) bool {
	groups := strings.Split(s, "-")
	if len(groups) != 5 {
		return false
	}
	for i, size := range []int{8, 4, 4, 4, 12} {
		if len(groups[i]) != size || strings.Trim(groups[i], "0123456789abcdef") != "" {
			return false
		}
	}
	return true
}

func appendCerts(out []byte, certs []SNPCert) ([]byte, error) {
	if err := checkCerts(certs); err != nil {
		return nil, err
	}
	leaf := false
	for _, c := range certs {
		leaf = leaf || c.Type == SNPCertVCEK || c.Type == SNPCertVLEK
	}
	if !leaf {
		return append(out, "null"...), nil
	}
	for i, c := range certs {
		sep := byte(',')
		if i == 0 {
			sep = '['
		}
		kind := `"` + string(c.Type) + `"`
		if c.Type == SNPCertOther {
			kind = `{"OTHER":"` + c.GUID + `"}`
		}
		out = append(append(out, sep), `{"cert_type":`+kind+`,"data":`...)
		out = append(appendOctets(out, c.DER), '}')
	}
	return append(out, ']'), nil
}

func parseCerts(raw jsontext.Value) ([]SNPCert, error) {
	var items []jsontext.Value
	if raw.Kind() != '[' {
		return nil, errors.New("neither null nor an array")
	}
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, errors.New(syntaxReason(err))
	}
	if len(items) > maxSNPCerts {
		return nil, fmt.Errorf("%d certificates, at most %d allowed", len(items), maxSNPCerts)
	}
	certs := make([]SNPCert, 0, len(items))
	for _, item := range items {
		c, err := parseCert(item)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	return certs, checkCerts(certs)
}

func parseCert(raw jsontext.Value) (SNPCert, error) {
	r := readObject("certificate", raw, len(raw))
	kind, data := r.take("cert_type"), r.take("data")
	if err := r.done(); err != nil {
		return SNPCert{}, err
	}
	var c SNPCert
	var err error
	if kind.Kind() == '{' {
		other := readObject("cert_type", kind, len(kind))
		c.Type, c.GUID = SNPCertOther, other.text("OTHER")
		err = other.done()
	} else {
		var name string
		name, err = textOf(kind)
		c.Type = SNPCertType(name)
	}
	if err != nil {
		return SNPCert{}, fmt.Errorf("parsing cert_type: %w", err)
	}
	if c.DER, err = octetsOf(data, MaxSNPCertSize); err != nil {
		return SNPCert{}, fmt.Errorf("parsing certificate data: %w", err)
	}
	return c, nil
}
