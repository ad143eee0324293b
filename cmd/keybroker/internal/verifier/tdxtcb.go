// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/casemate/casemate/agent/evidence"
)

// maxTDXCollateral is several times what Intel serves for a platform.
const maxTDXCollateral = 1 << 20

// Names in the collateral directory; the body of each is as Intel's service sends it.
const (
	tdxSigningChain = "tdx/tcb-signing-chain.pem"
	tdxQEIdentity   = "tdx/qeidentity.json"
	tdxTCBInfoName  = "tdx/tcbinfo-%x.json" // by FMSPC
)

// tcbLevel is one row of a table, the first of which that a platform reaches counts.
type tcbLevel struct {
	TCB struct {
		SGX    []svn `json:"sgxtcbcomponents"`
		TDX    []svn `json:"tdxtcbcomponents"`
		PCESVN *int  `json:"pcesvn"`
		ISVSVN *int  `json:"isvsvn"`
	} `json:"tcb"`
	Date       time.Time `json:"tcbDate"`
	Status     string    `json:"tcbStatus"`
	Advisories []string  `json:"advisoryIDs"`
}

type svn struct {
	SVN int `json:"svn"`
}

// validFor is when a piece of collateral counts.
type validFor struct{ issued, next time.Time }

type moduleIdentity struct {
	ID       string     `json:"id"`
	MRSigner string     `json:"mrsigner"`
	Levels   []tcbLevel `json:"tcbLevels"`
}

// tcbInfo is Intel's table for a processor family, version 3.
type tcbInfo struct {
	ID      string           `json:"id"`
	Issued  time.Time        `json:"issueDate"`
	Next    time.Time        `json:"nextUpdate"`
	Version int              `json:"version"`
	FMSPC   string           `json:"fmspc"`
	PCEID   string           `json:"pceId"`
	Modules []moduleIdentity `json:"tdxModuleIdentities"`
	Levels  []tcbLevel       `json:"tcbLevels"`
}

// qeIdentity says which enclave quotes for TDX, version 2.
type qeIdentity struct {
	ID             string     `json:"id"`
	Issued         time.Time  `json:"issueDate"`
	Next           time.Time  `json:"nextUpdate"`
	Version        int        `json:"version"`
	MiscSelect     string     `json:"miscselect"`
	MiscSelectMask string     `json:"miscselectMask"`
	Attributes     string     `json:"attributes"`
	AttributesMask string     `json:"attributesMask"`
	MRSigner       string     `json:"mrsigner"`
	ISVProdID      *int       `json:"isvprodid"`
	Levels         []tcbLevel `json:"tcbLevels"`
}

// signedBody cuts member out of text without touching a byte and checks who signed it.
func signedBody(text []byte, member string, signer *x509.Certificate) ([]byte, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("reading %s: malformed JSON", member)
	}
	var signature string
	if err := json.Unmarshal(members["signature"], &signature); err != nil {
		return nil, fmt.Errorf("reading %s: no signature", member)
	}
	raw, err := hex.DecodeString(signature)
	if err != nil || !verifyP256(signer.PublicKey, members[member], raw) {
		return nil, fmt.Errorf("%s is not signed by %q", member, signer.Subject.CommonName)
	}
	return members[member], nil
}

// tdxSigner reads the certificate that signs tables, which the root must have signed.
func (c *collateral) tdxSigner(root *x509.Certificate) (*x509.Certificate, error) {
	text, err := c.read(tdxSigningChain, MaxTestRoots)
	if err != nil {
		return nil, err
	}
	certs, err := parsePEM(text)
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 || certs[0].IsCA {
		return nil, errors.New("the signing chain starts with no signing certificate")
	}
	return certs[0], signedBy(certs[0], root)
}

func (i *tcbInfo) window() validFor { return validFor{i.Issued, i.Next} }

func (q *qeIdentity) window() validFor { return validFor{q.Issued, q.Next} }

// level returns the first level that both the PCK's components and the quote's reach.
// With a module version of 1 or more, the first two components are the module's, which
// has a table of its own.
func (i tcbInfo) level(p *pck, tdx []byte) (tcbLevel, error) {
	from := 0
	if tdx[1] > 0 {
		from = 2
	}
	for _, l := range i.Levels {
		if len(l.TCB.SGX) != svnComponents || len(l.TCB.TDX) != svnComponents || l.TCB.PCESVN == nil {
			return tcbLevel{}, errors.New("a TCB level lacks components")
		}
		reached := p.pceSVN >= *l.TCB.PCESVN
		for n := range svnComponents {
			reached = reached && p.components[n] >= l.TCB.SGX[n].SVN && (n < from || int(tdx[n]) >= l.TCB.TDX[n].SVN)
		}
		if reached {
			return l, nil
		}
	}
	return tcbLevel{}, errors.New("the platform reaches no TCB level")
}

// module returns the level of the TDX module; the zero level when its version is 0.
func (i tcbInfo) module(r evidence.TDReport) (tcbLevel, bool, error) {
	version, found := r.TCBSVN()[1], fmt.Sprintf("TDX_%02X", r.TCBSVN()[1])
	if version == 0 {
		return tcbLevel{}, false, nil
	}
	for _, m := range i.Modules {
		if m.ID != found {
			continue
		}
		if !hexEqual(m.MRSigner, r.MRSignerSeam()) {
			return tcbLevel{}, true, fmt.Errorf("module %s is signed by another than listed", found)
		}
		l, err := isvLevel(m.Levels, int(r.TCBSVN()[0]))
		return l, true, err
	}
	return tcbLevel{}, true, fmt.Errorf("module %s is not listed", found)
}

func isvLevel(levels []tcbLevel, isv int) (tcbLevel, error) {
	for _, l := range levels {
		if l.TCB.ISVSVN != nil && isv >= *l.TCB.ISVSVN {
			return l, nil
		}
	}
	return tcbLevel{}, fmt.Errorf("version %d reaches no level", isv)
}

// Who quotes for TDX, as every edition of Intel's table has it.
const (
	qeSigner  = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"
	qeProduct = 2
	// sgxDebug is the attribute by which whoever runs an enclave reads and writes its memory.
	sgxDebug = 1 << 1
)

// ofIntel wants Intel's quoting enclave, whether a table is at hand or not: a PCK certifies the report of any enclave
// that the host runs, one that quotes whatever the host likes among them. The table says more, above all which versions
// are good.
func ofIntel(r evidence.QEReport) error {
	switch {
	case !hexEqual(qeSigner, r.MRSigner()):
		return fmt.Errorf("an enclave signed by %x", r.MRSigner())
	case r.ISVProdID() != qeProduct:
		return fmt.Errorf("quoting enclave is product %d", r.ISVProdID())
	case r.Attributes()[0]&sgxDebug != 0:
		return errors.New("quoting enclave runs under a debugger")
	}
	return nil
}

// check compares the quoting enclave with who it must be.
func (q qeIdentity) check(r evidence.QEReport) error {
	switch {
	case !hexEqual(q.MRSigner, r.MRSigner()):
		return errors.New("quoting enclave is signed by another")
	case q.ISVProdID == nil || *q.ISVProdID != int(r.ISVProdID()):
		return fmt.Errorf("quoting enclave is product %d", r.ISVProdID())
	case !maskedEqual(q.MiscSelect, q.MiscSelectMask, r.MiscSelect()):
		return fmt.Errorf("quoting enclave has MISCSELECT %x", r.MiscSelect())
	case !maskedEqual(q.Attributes, q.AttributesMask, r.Attributes()):
		return fmt.Errorf("quoting enclave has attributes %x", r.Attributes())
	}
	return nil
}

func hexEqual(text string, b []byte) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && bytes.Equal(raw, b)
}

func maskedEqual(text, mask string, b []byte) bool {
	want, err1 := hex.DecodeString(text)
	bits, err2 := hex.DecodeString(mask)
	if err1 != nil || err2 != nil || len(want) != len(b) || len(bits) != len(b) {
		return false
	}
	got := slices.Clone(b)
	for i := range got {
		got[i] &= bits[i]
		want[i] &= bits[i]
	}
	return bytes.Equal(got, want)
}
