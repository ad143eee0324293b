// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	// maxCRLSize is far above AMD's lists, which have a handful of entries.
	maxCRLSize = 1 << 20
	// maxCRLs is more than the product lines there are, test roots included.
	maxCRLs = 32
	// crlInterval is how soon a list that was put into the directory counts.
	crlInterval = time.Minute
)

// vlekSuffix ends the names of lists about the intermediates of VLEKs. AMD keeps those
// apart, though the same root signs them.
const vlekSuffix = "-vlek.crl"

// collateral is a directory of certificates and revocation lists, laid out as
// Trustee's offline store: vcek/HWID/*vcek.der, and beside it crl/*.crl and vlek/LINE.pem.
type collateral struct {
	dir string // "" for none

	mu     sync.Mutex // guards lists, what they point to, and readAt
	lists  []*crl
	readAt time.Time
}

// crl remembers whose signature it carries, which takes an RSA operation to find out.
type crl struct {
	list *x509.RevocationList
	vlek bool              // about the intermediates of VLEKs
	ark  *x509.Certificate // nil until one has verified
}

func (l *crl) signedBy(ark *x509.Certificate) bool {
	if l.ark != nil {
		return l.ark.Equal(ark)
	}
	if !bytes.Equal(l.list.RawIssuer, ark.RawSubject) || l.list.CheckSignatureFrom(ark) != nil {
		return false
	}
	l.ark = ark
	return true
}

func newCollateral(dir string) (*collateral, error) {
	c := &collateral{dir: dir}
	if dir == "" {
		return c, nil
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("opening collateral %s: not a directory", dir)
	}
	var err error
	if c.lists, err = c.readLists(); err != nil {
		return nil, err
	}
	c.readAt = time.Now()
	return c, nil
}

// vcek returns the certificate for the chip and firmware of a report, nil when the
// directory has none.
func (c *collateral) vcek(r *evidence.SNPReport) ([]byte, error) {
	if c.dir == "" {
		return nil, nil
	}
	for _, name := range vcekNames(r) {
		der, err := c.read(name, evidence.MaxSNPCertSize)
		if !errors.Is(err, fs.ErrNotExist) {
			return der, err
		}
	}
	return nil, nil
}

// vcekNames are the places of a VCEK in the directory, that of its firmware first.
func vcekNames(r *evidence.SNPReport) [2]string {
	hwid, tcb := r.ChipID(), r.ReportedTCB()
	level := fmt.Sprintf("bl%02d_tee%02d_snp%02d_ucode%02d", tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode)
	if r.Product() == evidence.Turin {
		hwid = hwid[:8]
		level += fmt.Sprintf("_fmc%02d", tcb.FMC)
	}
	dir := path.Join("vcek", fmt.Sprintf("%x", hwid))
	return [2]string{path.Join(dir, level+"_vcek.der"), path.Join(dir, "vcek.der")}
}

// read returns a file of the directory, which cannot be left by links.
func (c *collateral) read(name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return nil, fmt.Errorf("opening collateral: %w", err)
	}
	defer root.Close()
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, fmt.Errorf("opening collateral: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading collateral %s: %w", name, err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("reading collateral %s: over %d bytes", name, limit)
	}
	return text, nil
}

func (c *collateral) readLists() ([]*crl, error) {
	entries, err := os.ReadDir(filepath.Join(c.dir, "crl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading collateral: %w", err)
	}
	var lists []*crl
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".crl") {
			continue
		}
		if len(lists) == maxCRLs {
			return nil, fmt.Errorf("reading collateral: more than %d revocation lists", maxCRLs)
		}
		text, err := c.read("crl/"+e.Name(), maxCRLSize)
		if err != nil {
			return nil, err
		}
		if block, _ := pem.Decode(text); block != nil {
			text = block.Bytes
		}
		list, err := x509.ParseRevocationList(text)
		if err != nil {
			return nil, fmt.Errorf("parsing revocation list %s: %w", e.Name(), err)
		}
		lists = append(lists, &crl{list: list, vlek: strings.HasSuffix(e.Name(), vlekSuffix)})
	}
	return lists, nil
}

// revocations returns the newest list that ark signed, nil for none.
func (c *collateral) revocations(ark *x509.Certificate) *x509.RevocationList {
	return newest(c.listsOf(ark), func(*crl) bool { return true })
}

// revocationsOf is revocations of the lists about the intermediates of keys of kind. all are
// the root's lists of either kind.
func (c *collateral) revocationsOf(ark *x509.Certificate, kind keyKind) (current *x509.RevocationList, all []*crl) {
	all = c.listsOf(ark)
	return newest(all, func(l *crl) bool { return l.vlek == (kind == vlek) }), all
}

func newest(lists []*crl, of func(*crl) bool) (list *x509.RevocationList) {
	for _, l := range lists {
		if of(l) && (list == nil || l.list.ThisUpdate.After(list.ThisUpdate)) {
			list = l.list
		}
	}
	return list
}

// listsOf returns the lists that ark signed. A directory that can no longer be read keeps
// what was read before; staleness then shows in the list.
func (c *collateral) listsOf(ark *x509.Certificate) (lists []*crl) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir != "" && time.Since(c.readAt) > crlInterval {
		if lists, err := c.readLists(); err == nil {
			c.lists = lists
		}
		c.readAt = time.Now()
	}
	for _, l := range c.lists {
		if l.signedBy(ark) {
			lists = append(lists, l)
		}
	}
	return lists
}

// asvks returns the intermediates of VLEKs that are kept for a product line, as evidence
// would bring them; nothing in them is believed before the root has signed it.
func (c *collateral) asvks(line string) []evidence.SNPCert {
	if c.dir == "" {
		return nil
	}
	text, err := c.read("vlek/"+line+".pem", MaxTestRoots)
	if err != nil {
		return nil
	}
	certs, err := parsePEM(text)
	if err != nil {
		return nil
	}
	var list []evidence.SNPCert
	for _, cert := range certs {
		list = append(list, evidence.SNPCert{Type: evidence.SNPCertASK, DER: cert.Raw})
	}
	return list
}
