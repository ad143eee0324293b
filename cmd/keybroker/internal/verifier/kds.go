// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	// AMDKDS is AMD's Key Distribution Service (AMD 57230).
	AMDKDS = "https://kdsintf.amd.com"

	// kdsTime is short: a verifying slot waits.
	kdsTime = 5 * time.Second
	// AMD answers an address about once in ten seconds; a guest that nobody knows yet can
	// make us ask.
	kdsEvery = 10 * time.Second
	kdsBurst = 3
	// maxKDSFailures bounds what is remembered of chips that AMD does not know.
	maxKDSFailures = 1024
	kdsForget      = 10 * time.Minute

	// RevocationInterval is how often the lists are fetched; a list that AMD replaces
	// early is there within a day.
	RevocationInterval = 24 * time.Hour
)

// distribution fetches what the collateral directory lacks and puts it there. AMD's word is taken
// by signature below the roots that are part of this program: whoever answers in AMD's
// place can only withhold. It is safe for concurrent use.
type distribution struct {
	url    string
	client *http.Client
	limit  *rate.Limiter

	mu     sync.Mutex // held during a fetch: one at a time
	failed map[string]time.Time
}

func newKDS(address string) (*distribution, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("opening AMD's KDS at %q: want https://HOST or http://HOST", address)
	}
	return &distribution{
		url: strings.TrimRight(address, "/"), limit: rate.NewLimiter(rate.Every(kdsEvery), kdsBurst), failed: map[string]time.Time{},
		client: &http.Client{Timeout: kdsTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// errKDSBusy says that asking now would be too much.
var errKDSBusy = errors.New("AMD's KDS is being asked already, or was asked too often; the guest may try again")

// get fetches one document of at most limit bytes.
func (k *distribution) get(ctx context.Context, where string, limit int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url+where, nil)
	if err != nil {
		return nil, err
	}
	response, err := k.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking AMD's KDS: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking AMD's KDS: status %d", response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("asking AMD's KDS: %w", err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("asking AMD's KDS: over %d bytes", limit)
	}
	return text, nil
}

// fetchVCEK fetches the certificate of a chip at the reported TCB and keeps it. What the report
// says is not verified yet: its chip may be made up.
func (v *snpVerifier) fetchVCEK(r *evidence.SNPReport) ([]byte, error) {
	k, name := v.kds, vcekNames(r)[0]
	if !k.mu.TryLock() {
		return nil, errKDSBusy
	}
	defer k.mu.Unlock()
	if at, failed := k.failed[name]; failed && time.Since(at) < kdsForget {
		return nil, errors.New("AMD's KDS had no good certificate for this chip and firmware a while ago")
	}
	if !k.limit.Allow() {
		return nil, errKDSBusy
	}
	der, err := k.get(context.Background(), vcekPath(r), evidence.MaxSNPCertSize)
	if err == nil {
		err = v.checkFetched(der, r)
	}
	if err == nil {
		err = v.collateral.keep(name, der)
	}
	if err != nil {
		if len(k.failed) >= maxKDSFailures {
			clear(k.failed)
		}
		k.failed[name] = time.Now()
		return nil, err
	}
	return der, nil
}

// vcekPath is the documented address of a VCEK.
func vcekPath(r *evidence.SNPReport) string {
	hwid, tcb := r.ChipID(), r.ReportedTCB()
	query := fmt.Sprintf("blSPL=%02d&teeSPL=%02d&snpSPL=%02d&ucodeSPL=%02d", tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode)
	if r.Product() == evidence.Turin {
		hwid, query = hwid[:8], fmt.Sprintf("fmcSPL=%02d&", tcb.FMC)+query
	}
	return fmt.Sprintf("/vcek/v1/%s/%x?%s", r.Product(), hwid, query)
}

// checkFetched wants the certificate that was asked for, below a root that is trusted:
// what is kept is never asked for again.
func (v *snpVerifier) checkFetched(der []byte, r *evidence.SNPReport) error {
	vek, err := parseVEK(der, r.Product())
	if err != nil {
		return err
	}
	chain, err := v.chains.verify(vek, productLine(r.Product()), nil)
	if err != nil {
		return err
	}
	c := &snpCase{v: v, report: r, vek: vek, chain: chain}
	if _, _, ok := checkCertifiedTCB(c); !ok {
		return errors.New("AMD's KDS sent the certificate of other firmware")
	}
	if _, _, ok := checkCertifiedChip(c); !ok {
		return errors.New("AMD's KDS sent the certificate of another chip")
	}
	return nil
}

// RefreshRevocations fetches the revocation list of each of AMD's product lines and keeps
// those that are newer than what is there. A line whose list cannot be had keeps the old
// one; all failures are returned. Without a KDS it does nothing.
func (v *Verifier) RefreshRevocations(ctx context.Context) error {
	var failures []error
	for _, product := range []evidence.SNPProduct{evidence.Milan, evidence.Genoa, evidence.Turin} {
		if v.snp.kds == nil {
			break
		}
		if err := v.snp.refresh(ctx, product); err != nil {
			failures = append(failures, fmt.Errorf("revocation list of %s: %w", product, err))
		}
	}
	return errors.Join(failures...)
}

func (v *snpVerifier) refresh(ctx context.Context, product evidence.SNPProduct) error {
	der, err := v.kds.get(ctx, fmt.Sprintf("/vcek/v1/%s/crl", product), maxCRLSize)
	if err != nil {
		return err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return errors.New("not a revocation list")
	}
	line := productLine(product)
	for _, root := range []*root{v.chains.amd[line], v.chains.test} {
		if root == nil || !bytes.Equal(list.RawIssuer, root.ark.RawSubject) || list.CheckSignatureFrom(root.ark) != nil {
			continue
		}
		if old := v.collateral.revocations(root.ark); old != nil && !list.ThisUpdate.After(old.ThisUpdate) {
			return nil // withheld or unchanged
		}
		if err := v.collateral.keep(path.Join("crl", "amd-"+line+".crl"), der); err != nil {
			return err
		}
		v.collateral.reread()
		return nil
	}
	return fmt.Errorf("not signed by the root of %s", line)
}

// keep writes a file of the directory in one step.
func (c *collateral) keep(name string, content []byte) error {
	full := filepath.Join(c.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
		return fmt.Errorf("keeping collateral: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(full), ".new-")
	if err != nil {
		return fmt.Errorf("keeping collateral: %w", err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), full)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keeping collateral: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// reread makes the next look at revocation lists read the directory.
func (c *collateral) reread() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readAt = time.Time{}
}
