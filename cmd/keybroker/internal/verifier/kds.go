// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
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

	// RefreshInterval is how often lists and intermediates are fetched; a list that AMD
	// replaces early is there within a day.
	RefreshInterval = 24 * time.Hour
)

// distribution fetches what the collateral directory lacks and puts it there. AMD's word is taken
// by signature below the roots that are part of this program: whoever answers in AMD's
// place can only withhold. It is safe for concurrent use.
type distribution struct {
	url    string
	client *http.Client
	limit  *rate.Limiter
	pace   time.Duration // between the requests of a refresh

	mu     sync.Mutex // held during a fetch: one at a time
	failed map[string]time.Time
}

func newKDS(address string) (*distribution, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("opening AMD's KDS at %q: want https://HOST or http://HOST", address)
	}
	return &distribution{
		url: strings.TrimRight(address, "/"), pace: kdsEvery, limit: rate.NewLimiter(rate.Every(kdsEvery), kdsBurst), failed: map[string]time.Time{},
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

// Refresh fetches what AMD publishes for each of its product lines, the revocation lists for
// VCEKs and for VLEKs and the intermediate of VLEKs, and keeps what is good and newer than
// what is there. What cannot be had stays as it was; all failures are returned. It takes
// its time, as AMD wants it. Without a KDS it does nothing.
//
// A VLEK itself is given out to its cloud provider alone (AMD 57230): its certificate has to
// come with the evidence.
func (v *Verifier) Refresh(ctx context.Context) error {
	if v.snp.kds == nil {
		return nil
	}
	var failures []error
	for i, product := range []evidence.SNPProduct{evidence.Milan, evidence.Genoa, evidence.Turin} {
		for j, step := range []struct {
			what string
			do   func() error
		}{
			{"revocation list", func() error { return v.snp.refreshList(ctx, product, vcek) }},
			{"revocation list for VLEKs", func() error { return v.snp.refreshList(ctx, product, vlek) }},
			{"intermediate of VLEKs", func() error { return v.snp.refreshASVK(ctx, product) }},
		} {
			if i+j > 0 {
				select {
				case <-time.After(v.snp.kds.pace):
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			if err := step.do(); err != nil {
				failures = append(failures, fmt.Errorf("%s of %s: %w", step.what, product, err))
			}
		}
	}
	return errors.Join(failures...)
}

// listPlace is where the lists about keys of a kind are, at AMD's and in the directory.
func listPlace(product evidence.SNPProduct, kind keyKind) (address, name string) {
	name = "amd-" + productLine(product) + ".crl"
	if kind == vlek {
		name = "amd-" + productLine(product) + vlekSuffix
	}
	return fmt.Sprintf("/%s/v1/%s/crl", strings.ToLower(string(kind)), product), path.Join("crl", name)
}

// rootsOf are those that may have signed what is fetched for a product.
func (v *snpVerifier) rootsOf(product evidence.SNPProduct) []*root {
	roots := []*root{v.chains.amd[productLine(product)]}
	if v.chains.test != nil {
		roots = append(roots, v.chains.test)
	}
	return roots
}

func (v *snpVerifier) refreshList(ctx context.Context, product evidence.SNPProduct, kind keyKind) error {
	address, name := listPlace(product, kind)
	der, err := v.kds.get(ctx, address, maxCRLSize)
	if err != nil {
		return err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return errors.New("not a revocation list")
	}
	for _, root := range v.rootsOf(product) {
		if !bytes.Equal(list.RawIssuer, root.ark.RawSubject) || list.CheckSignatureFrom(root.ark) != nil {
			continue
		}
		if old, _ := v.collateral.revocationsOf(root.ark, kind); old != nil && !list.ThisUpdate.After(old.ThisUpdate) {
			return nil // withheld or unchanged
		}
		if err := v.collateral.keep(name, der); err != nil {
			return err
		}
		v.collateral.reread()
		return nil
	}
	return fmt.Errorf("not signed by the root of %s", productLine(product))
}

// refreshASVK keeps the intermediates that a root signed. This program has those of its day;
// AMD may make others.
func (v *snpVerifier) refreshASVK(ctx context.Context, product evidence.SNPProduct) error {
	text, err := v.kds.get(ctx, fmt.Sprintf("/vlek/v1/%s/cert_chain", product), MaxTestRoots)
	if err != nil {
		return err
	}
	certs, err := parsePEM(text)
	if err != nil {
		return err
	}
	var kept []byte
	for _, cert := range certs {
		for _, root := range v.rootsOf(product) {
			if !cert.Equal(root.ark) && signedBy(cert, root.ark) == nil {
				kept = append(kept, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
				break
			}
		}
	}
	if kept == nil {
		return fmt.Errorf("no certificate by the root of %s", productLine(product))
	}
	return v.collateral.keep(path.Join("vlek", productLine(product)+".pem"), kept)
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
