// SPDX-License-Identifier: Apache-2.0

//go:build interop

package api

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/casemate/casemate/agent/attest"
	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/internal/owner"
)

const (
	hclIndex  tpm2.TPMHandle = 0x01400001
	dataIndex tpm2.TPMHandle = 0x01400002
	azureKey  tpm2.TPMHandle = 0x81000003
	hclSize                  = 2048 // as much as swtpm has room for; a real one has 2600 bytes
)

// paravisor does around a TPM in software what Azure's does: it makes the key, and keeps
// a report of the hardware in an NV index, bound to the key and to what the guest wrote.
type paravisor struct {
	*swTPM
	chip *snptest.Signer
	key  string // its modulus in base64url
	idle bool   // it takes no new reports
}

func ownerAuth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
}

func startParavisor(t *testing.T) *paravisor {
	t.Helper()
	m, err := chip()
	must(t, err)
	copied := *m
	p := &paravisor{swTPM: startTPM(t), chip: &copied}
	c, err := p.open()
	must(t, err)
	defer c.Close()
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(signingKey())}.Execute(c)
	must(t, err)
	_, err = tpm2.EvictControl{Auth: ownerAuth(), ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: azureKey}.Execute(c)
	must(t, err)
	_, err = tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(c)
	must(t, err)
	public, err := made.OutPublic.Contents()
	must(t, err)
	key, err := tpm2.Pub(*public)
	must(t, err)
	p.key = base64.RawURLEncoding.EncodeToString(key.(*rsa.PublicKey).N.Bytes())
	_, err = tpm2.NVDefineSpace{AuthHandle: ownerAuth(), PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: hclIndex, NameAlg: tpm2.TPMAlgSHA256, Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true}, DataSize: hclSize,
	})}.Execute(c)
	must(t, err)
	p.report(c)
	return p
}

func signingKey() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme:  tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
			KeyBits: 2048,
		}),
	}
}

func (p *paravisor) index(c transport.TPM, at tpm2.TPMHandle) (tpm2.NamedHandle, int) {
	pub, err := tpm2.NVReadPublic{NVIndex: at}.Execute(c)
	if err != nil {
		return tpm2.NamedHandle{}, 0
	}
	public, err := pub.NVPublic.Contents()
	must(p.t, err)
	return tpm2.NamedHandle{Handle: at, Name: pub.NVName}, int(public.DataSize)
}

// report takes a new report of the hardware and leaves it where the guest reads it.
func (p *paravisor) report(c transport.TPM) {
	userData := make([]byte, 64)
	if at, size := p.index(c, dataIndex); size > 0 {
		read, err := tpm2.NVRead{AuthHandle: ownerAuth(), NVIndex: at, Size: uint16(size)}.Execute(c)
		must(p.t, err)
		copy(userData, read.Data.Buffer)
	}
	claims := fmt.Sprintf(`{"keys":[{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":"%s"}],"vm-configuration":{"secure-boot":true},"user-data":"%X"}`, p.key, userData)
	hardware, err := p.chip.Report(evidence.HCLReport{Claims: []byte(claims)}.Binding().Bytes64())
	must(p.t, err)
	out := append(append([]byte("HCLA"), make([]byte, 28)...), hardware...)
	for _, v := range []uint32{uint32(20 + len(claims)), 1, 2, 1, uint32(len(claims))} {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	out = append(out, claims...)
	out = append(out, make([]byte, hclSize-len(out))...)
	at, _ := p.index(c, hclIndex)
	for from := 0; from < len(out); from += 512 {
		part := out[from:min(from+512, len(out))]
		_, err := tpm2.NVWrite{AuthHandle: ownerAuth(), NVIndex: at, Data: tpm2.TPM2BMaxNVBuffer{Buffer: part}, Offset: uint16(from)}.Execute(c)
		must(p.t, err)
	}
}

// guestOpen is the TPM as the guest has it: the paravisor has looked meanwhile.
func (p *paravisor) guestOpen() (transport.TPMCloser, error) {
	c, err := p.open()
	if err == nil && !p.idle {
		p.report(c)
	}
	return c, err
}

// metadata is Azure's metadata service with the chip's certificate.
func (p *paravisor) metadata() string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/metadata/THIM/amd/certification" || r.Header.Get("Metadata") != "true" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		text, err := json.Marshal(map[string]string{"vcekCert": string(certificate(p.chip.VCEK.Raw)), "certificateChain": "", "tcbm": "00"})
		if err == nil {
			_, _ = w.Write(text)
		}
	}))
	p.t.Cleanup(srv.Close)
	return srv.URL
}

// TestAzureHandshake takes a guest below a paravisor through the whole handshake: its
// vTPM is swtpm, its hardware a test chip, its metadata service on loopback.
func TestAzureHandshake(t *testing.T) {
	p := startParavisor(t)
	p.boot()
	a, err := attest.Detect(attest.Config{TPM: p.guestOpen, AzureMetadata: p.metadata()})
	must(t, err)
	if a.TEE() != evidence.AzSNPvTPM {
		t.Fatalf("detected %s", a.TEE())
	}
	b := newBroker(t)
	doc, other := document(t, "web", ""), document(t, "web", "# looser\n")
	record(t, a, doc)
	raw, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil))
	must(t, err)
	e, err := evidence.ParseAzureEvidence(evidence.AzSNPvTPM, raw)
	must(t, err)
	register := func(change func(*owner.Registration)) {
		b.register("web", doc, func(r *owner.Registration) {
			r.TEEs = []evidence.TEE{evidence.AzSNPvTPM}
			r.AcceptUnproved = []owner.Part{owner.PartAgent} // no initrd was measured into this TPM
			r.Azure = &owner.AzureReference{PCRs: owner.PCRs{"4": {fmt.Sprintf("%x", e.Registers[4])}}}
			if change != nil {
				change(r)
			}
		})
	}
	register(nil)
	b.put("web", "app/keys/one", "the secret")
	get := func(doc []byte) ([]byte, error) {
		client, err := kbs.New(kbs.Config{URL: b.url, AllowPlainHTTP: true, Attester: a, InitData: doc})
		must(t, err)
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return client.Key(ctx, "kbs:///app/keys/one")
	}
	if secret, err := get(doc); err != nil || string(secret) != "the secret" {
		t.Fatalf("got %q, %v: %+v", secret, err, b.records())
	}
	b.wantLast("release", "")

	deny := func(name, rule string, doc []byte) {
		t.Helper()
		if secret, err := get(doc); err == nil {
			t.Fatalf("%s: got %q", name, secret)
		}
		b.wantLast("attest", rule)
	}
	register(func(r *owner.Registration) { r.TEEs, r.Azure = []evidence.TEE{evidence.SNP}, nil })
	deny("a registration for SNP without a paravisor", "tee-listed", doc)
	register(func(r *owner.Registration) { r.InitData = append(r.InitData, digestOf(t, other)) })
	deny("other initdata, listed and not recorded", "initdata-register", other)
	register(nil)
	p.chip.Params.Measurement = "cd" + p.chip.Params.Measurement[2:]
	deny("another paravisor", "measurement", doc)
	p.chip.Params.Measurement = "ab" + p.chip.Params.Measurement[2:]
	letter := "x"
	if p.key[0] == 'x' {
		letter = "y"
	}
	p.key = letter + p.key[1:]
	deny("a report that names another vTPM's key", "quote-signature", doc)
	p.key = base64.RawURLEncoding.EncodeToString(mustKey(t, e).N.Bytes())
	p.extend(4, [32]byte{1})
	deny("another boot loader", "pcrs", doc)
}

func mustKey(t *testing.T, e evidence.AzureEvidence) *rsa.PublicKey {
	t.Helper()
	key, _, err := e.PublicKey()
	must(t, err)
	return key
}

// TestAzureParavisorThatIsIdle: a report that stays bound to other data is not sent.
func TestAzureParavisorThatIsIdle(t *testing.T) {
	p := startParavisor(t)
	a, err := attest.Detect(attest.Config{TPM: p.guestOpen, AzureMetadata: "http://127.0.0.1:1"})
	must(t, err)
	p.idle = true
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if out, err := a.Evidence(ctx, evidence.WorkloadReportData(nil)); err == nil {
		t.Errorf("got %s", out)
	}
	p.idle = false
	if out, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil)); err == nil {
		t.Errorf("without a metadata service: %s", out)
	}
}
