// SPDX-License-Identifier: Apache-2.0

//go:build interop

package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/casemate/casemate/agent/attest"
	"github.com/casemate/casemate/agent/eventlog"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// swTPM is a TPM 2.0 in software, swtpm, that starts empty.
type swTPM struct {
	t    *testing.T
	port int
	log  string // event log of its firmware, "" for none
}

// freePorts returns a port that is free together with the next one, which is where
// tpm2-tools look for the control channel.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 50 {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		port := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		a.Close()
		if err == nil {
			b.Close()
			return port
		}
	}
	t.Fatal("no two free ports in a row")
	return 0
}

func startTPM(t *testing.T) *swTPM {
	t.Helper()
	s := &swTPM{t: t, port: freePorts(t)}
	state := t.TempDir()
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--server", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", s.port), "--ctrl", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", s.port+1),
		"--flags", "not-need-init,startup-clear")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("swtpm: %s", output.Bytes())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := s.open()
		if err == nil {
			c.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("swtpm does not listen: %v", err)
		}
	}
}

func (s *swTPM) open() (transport.TPMCloser, error) {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		return nil, err
	}
	return transport.FromReadWriteCloser(c), nil
}

func (s *swTPM) extend(index uint32, digest [32]byte) {
	s.t.Helper()
	c, err := s.open()
	must(s.t, err)
	defer c.Close()
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(index), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(c)
	must(s.t, err)
}

// tools runs a program of tpm2-tools on this TPM.
func (s *swTPM) tools(dir string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("TPM2TOOLS_TCTI=swtpm:host=127.0.0.1,port=%d", s.port))
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// boot measures as firmware does: each event goes into a register and into the log.
func (s *swTPM) boot() {
	s.t.Helper()
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), make([]byte, 16)...)
	log := le.AppendUint32(le.AppendUint32(nil, 0), 3)
	log = append(le.AppendUint32(append(log, make([]byte, 20)...), uint32(len(spec))), spec...)
	for _, e := range []struct {
		index uint32
		data  string
	}{{0, "firmware"}, {0, "more firmware"}, {4, "boot loader"}, {7, "secure boot"}} {
		digest := sha256.Sum256([]byte(e.data))
		s.extend(e.index, digest)
		log = le.AppendUint32(le.AppendUint32(le.AppendUint32(log, e.index), 4), 1)
		log = append(le.AppendUint16(log, 0x0B), digest[:]...)
		log = append(le.AppendUint32(log, uint32(len(e.data))), e.data...)
	}
	s.log = filepath.Join(s.t.TempDir(), "binary_bios_measurements")
	must(s.t, os.WriteFile(s.log, log, 0o600))
}

func (s *swTPM) attester() attest.Attester {
	s.t.Helper()
	log := s.log
	if log == "" {
		log = filepath.Join(s.t.TempDir(), "absent")
	}
	a, err := attest.Detect(attest.Config{TEE: evidence.TPM, TPM: s.open, TPMEventLog: log})
	must(s.t, err)
	return a
}

// record puts initdata into PCR 8 as a guest does before it attests.
func record(t *testing.T, a attest.Attester, doc []byte) {
	t.Helper()
	d, err := initdata.Parse(doc)
	must(t, err)
	must(t, a.(attest.InitDataRecorder).RecordInitData(t.Context(), d.Digest()))
}

// look is the evidence that the attester makes now.
func look(t *testing.T, a attest.Attester, data evidence.ReportData) (json.RawMessage, evidence.TPMEvidence) {
	t.Helper()
	raw, err := a.Evidence(t.Context(), data)
	must(t, err)
	e, err := evidence.ParseTPMEvidence(raw)
	must(t, err)
	return raw, e
}

// tpmRegistration takes what e shows: its key, and what its firmware measured.
func tpmRegistration(r *owner.Registration, e evidence.TPMEvidence) {
	r.TEEs, r.SNP, r.TestRoots = []evidence.TEE{evidence.TPM}, nil, false
	r.AcceptUnproved = []owner.Part{owner.PartAgent} // no initrd was measured into this TPM
	r.TPM = &owner.TPMReference{AttestationKeys: []string{evidence.KeyDigest(e.AttestationKey)}, PCRs: map[string][]string{}}
	for _, i := range []int{0, 4, 7} {
		r.TPM.PCRs[fmt.Sprint(i)] = []string{fmt.Sprintf("%x", e.Registers[i])}
	}
}

// Through the guest's own client and this keybroker, on a TPM of another make.
func TestTPMReleasesToTheRegisteredGuestOnly(t *testing.T) {
	s := startTPM(t)
	s.boot()
	a := s.attester()
	b := newBroker(t)
	doc := document(t, "web", "")
	record(t, a, doc)
	_, e := look(t, a, evidence.WorkloadReportData(nil))
	if e.EventLog == nil {
		t.Fatal("the evidence has no event log")
	}
	b.register("web", doc, func(r *owner.Registration) { tpmRegistration(r, e) })
	b.put("web", "app/keys/one", "the secret")

	get := func(a attest.Attester) ([]byte, error) {
		client, err := kbs.New(kbs.Config{URL: b.url, AllowPlainHTTP: true, Attester: a, InitData: doc})
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return client.Key(ctx, "kbs:///app/keys/one")
	}
	secret, err := get(a)
	if err != nil || string(secret) != "the secret" {
		t.Fatalf("got %q, %v: %+v", secret, err, b.records())
	}
	b.wantLast("release", "")

	// What the owner takes back, and a boot that measured one thing more.
	b.register("web", doc, func(r *owner.Registration) {
		tpmRegistration(r, e)
		r.TPM.AttestationKeys = []string{"sha256:" + strings.Repeat("11", 32)}
	})
	if _, err := get(a); err == nil {
		t.Fatal("a key that is no longer pinned gets the secret")
	}
	b.wantLast("attest", "attestation-key-listed")
	b.register("web", doc, func(r *owner.Registration) { tpmRegistration(r, e) })
	s.extend(4, sha256.Sum256([]byte("another kernel")))
	if _, err := get(a); err == nil {
		t.Fatal("a guest with another register 4 gets the secret")
	}
	if last := b.wantLast("attest", "event-log"); !slices.Equal(last.Also, []string{"pcrs"}) {
		t.Errorf("also denied by %v, want pcrs", last.Also)
	}

	// Another TPM that measured the same has another key.
	other := startTPM(t)
	other.boot()
	thief := other.attester()
	record(t, thief, doc)
	if _, err := get(thief); err == nil {
		t.Fatal("another TPM gets the secret")
	}
	b.wantLast("attest", "attestation-key-listed")
}

// chipTEE is an SNP machine with this initdata.
type chipTEE struct{ g *guest }

func (chipTEE) TEE() evidence.TEE { return evidence.SNP }

func (c chipTEE) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	return c.g.evidence(r), nil
}

// swappedTPM asks one TPM and says that another's answer was given.
type swappedTPM struct {
	kbs.Attester
	ask kbs.Attester
}

func (s swappedTPM) Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error) {
	return s.ask.Evidence(ctx, r)
}

// A TPM of another make beside a TEE, through the guest's own client: its key is bound by the
// TEE's report, its events replay, and what is said of it is a submodule of its own.
func TestTPMBesideATEE(t *testing.T) {
	s, other := startTPM(t), startTPM(t)
	s.boot()
	other.boot()
	device := func(s *swTPM, runtime attest.RuntimeLog) attest.Attester {
		list, err := attest.Devices(attest.Config{TPM: s.open, TPMEventLog: s.log, Runtime: runtime}, []evidence.TEE{evidence.TPM})
		must(t, err)
		return list[0]
	}
	register, ok := attest.TPMEvents(device(s, nil))
	if !ok {
		t.Fatal("a TPM beside a TEE has no register for events")
	}
	events, err := eventlog.Open(t.TempDir(), register)
	must(t, err)
	tpm := device(s, events)
	b := newBroker(t)
	doc := document(t, "web", "")
	_, e := look(t, tpm, evidence.WorkloadReportData(nil))
	registered := func(change func(*owner.Registration)) {
		b.register("web", doc, func(r *owner.Registration) {
			r.Devices = []evidence.TEE{evidence.TPM}
			r.TPM = &owner.TPMReference{AttestationKeys: []string{evidence.KeyDigest(e.AttestationKey)}, PCRs: owner.PCRs{"4": {fmt.Sprintf("%x", e.Registers[4])}}}
			if change != nil {
				change(r)
			}
		})
	}
	registered(nil)
	b.put("web", "app/keys/one", "the secret")
	get := func(devices ...kbs.Attester) error {
		client, err := kbs.New(kbs.Config{URL: b.url, AllowPlainHTTP: true, Attester: chipTEE{b.guest(doc)}, Devices: devices, InitData: doc})
		must(t, err)
		defer client.Close()
		secret, err := client.Key(t.Context(), "kbs:///app/keys/one")
		if err == nil && string(secret) != "the secret" {
			t.Errorf("got %q", secret)
		}
		return err
	}
	must(t, get(tpm)) // under the built-in policy: both parts are affirming
	if last := b.wantLast("release", ""); last.Devices != "tpm" || last.AttestationKey != evidence.KeyDigest(e.AttestationKey) {
		t.Errorf("the log names devices %q with key %q", last.Devices, last.AttestationKey)
	}
	must(t, events.Measure(eventlog.DomainImages, "PullImage", `{"image":"a", "digest":"sha256:b"}`))
	must(t, get(tpm))

	if get() == nil {
		t.Fatal("a guest without its TPM gets the secret")
	}
	b.wantLast("attest", "devices")
	if get(swappedTPM{tpm, device(other, nil)}) == nil {
		t.Fatal("another TPM gets the secret")
	}
	b.wantLast("attest", "attestation-key-listed")
	// Of a key that is not pinned the report alone vouches, which is not affirming.
	registered(func(r *owner.Registration) { r.TPM.AttestationKeys, r.Policy = nil, allowAll })
	must(t, get(device(other, nil)))
	registered(nil)
	s.extend(4, sha256.Sum256([]byte("another kernel")))
	if get(tpm) == nil {
		t.Fatal("a TPM with another register 4 gets the secret")
	}
	if last := b.wantLast("attest", "tpm-event-log"); !slices.Equal(last.Also, []string{"pcrs"}) {
		t.Errorf("also denied by %v, want pcrs", last.Also)
	}
	s.extend(evidence.TPMEventRegister, [32]byte{7})
	if get(tpm) == nil {
		t.Fatal("events outside the log pass")
	}
	b.wantLast("attest", "tpm-event-log")
}

// TestTPMRuntimeEvents extends a register of a TPM of another make by what a guest did,
// and has a keybroker replay it: left out, added or made outside the log it is denied.
func TestTPMRuntimeEvents(t *testing.T) {
	for name, firmware := range map[string]bool{"with a firmware log": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			s := startTPM(t)
			s.boot()
			if !firmware {
				s.log = ""
			}
			dir := t.TempDir()
			register, ok := attest.TPMEvents(s.attester())
			if !ok {
				t.Fatal("a plain TPM has no register for events")
			}
			events, err := eventlog.Open(dir, register)
			must(t, err)
			log := s.log
			if log == "" {
				log = filepath.Join(t.TempDir(), "absent")
			}
			a, err := attest.Detect(attest.Config{TEE: evidence.TPM, TPM: s.open, TPMEventLog: log, Runtime: events})
			must(t, err)
			b := newBroker(t)
			doc := document(t, "web", "")
			record(t, a, doc)
			_, e := look(t, a, evidence.WorkloadReportData(nil))
			b.register("web", doc, func(r *owner.Registration) { tpmRegistration(r, e) })
			b.put("web", "app/keys/one", "the secret")
			get := func(a attest.Attester) error {
				client, err := kbs.New(kbs.Config{URL: b.url, AllowPlainHTTP: true, Attester: a, InitData: doc})
				must(t, err)
				defer client.Close()
				_, err = client.Key(t.Context(), "kbs:///app/keys/one")
				return err
			}
			must(t, get(a))
			must(t, events.Measure(eventlog.DomainImages, "PullImage", `{"image":"a", "digest":"sha256:b"}`))
			must(t, events.Measure(eventlog.DomainGuest, "StartContainer", "{}"))
			must(t, get(a))
			if _, e := look(t, a, evidence.WorkloadReportData(nil)); !bytes.Contains(e.EventLog, []byte("PullImage")) || e.Registers[evidence.TPMEventRegister] == [32]byte{} {
				t.Error("the evidence has no entry, or its register is empty")
			}
			// The process starts again, and finds log and register as they were.
			again, err := eventlog.Open(dir, register)
			must(t, err)
			must(t, again.Measure(eventlog.DomainImages, "PullImage", `{"image":"a", "digest":"sha256:b"}`))
			must(t, get(a))
			s.extend(evidence.TPMEventRegister, [32]byte{7})
			if get(a) == nil {
				t.Fatal("a register that something else extended passes")
			}
			b.wantLast("attest", "event-log")
		})
	}
}

func TestTPMQuotesOfARealTPMAreJudged(t *testing.T) {
	s := startTPM(t)
	s.boot()
	a := s.attester()
	doc := document(t, "web", "")
	d, err := initdata.Parse(doc)
	must(t, err)
	record(t, a, doc)
	record(t, a, doc) // the guest's program starts again: skipped
	data := handshakeData(t, "bm9uY2U=")
	raw, e := look(t, a, data)
	again, _ := look(t, s.attester(), data)
	judge, err := verifier.New(verifier.Config{})
	must(t, err)
	in := verifier.Input{TEE: evidence.TPM, Evidence: raw, ReportData: data, InitData: verifier.Digest{Algorithm: d.Algorithm, Sum: d.Digest()}, Now: time.Now()}
	in.Registration = owner.Registration{ID: "web", InitData: []string{in.InitData.String()}}
	tpmRegistration(&in.Registration, e)
	must(t, in.Registration.Validate())
	for name, raw := range map[string]json.RawMessage{"first": raw, "by a second attester": again} {
		in.Evidence = raw
		if v := judge.Verify(in); !v.Allowed() {
			t.Fatalf("%s: %+v", name, v.Failed())
		}
	}
	deny := func(name string, in verifier.Input, rules ...string) {
		t.Helper()
		var got []string
		for _, f := range judge.Verify(in).Failed() {
			got = append(got, f.Rule)
		}
		if !slices.Equal(got, rules) {
			t.Errorf("%s: denied by %v, want %v", name, got, rules)
		}
	}
	nonce := in
	nonce.ReportData = handshakeData(t, "b3RoZXI=")
	deny("another nonce", nonce, "report-data")
	forged := e
	forged.Registers[4][0] ^= 1
	text, err := forged.Encode()
	must(t, err)
	register := in
	register.Evidence = text
	deny("another register in the evidence", register, "pcr-digest", "event-log", "pcrs")
	s.extend(8, sha256.Sum256([]byte("host")))
	twice, _ := look(t, a, data)
	eight := in
	eight.Evidence = twice
	deny("more in PCR 8", eight, "initdata-register")
	if err := a.(attest.InitDataRecorder).RecordInitData(t.Context(), d.Digest()); err == nil || !strings.Contains(err.Error(), "PCR 8 is ") {
		t.Errorf("recording into a used register: %v", err)
	}
	if err := a.(attest.InitDataRecorder).RecordInitData(t.Context(), nil); err == nil {
		t.Error("a register with something in it passes for none")
	}
}

func handshakeData(t *testing.T, nonce string) evidence.ReportData {
	t.Helper()
	b := &broker{t: t}
	g := &guest{b: b}
	g.newKey()
	runtimeData, err := evidence.NewRuntimeData(nonce, g.jwk, "")
	must(t, err)
	data, err := runtimeData.ReportData(evidence.DefaultHash)
	must(t, err)
	return data
}

// tpm2-tools is the second implementation: it makes the key at the handle that
// guest-components uses, and accepts our evidence as a quote by it.
func TestTPMToolsAcceptOurQuote(t *testing.T) {
	s := startTPM(t)
	s.boot()
	dir := t.TempDir()
	for _, args := range [][]string{
		{"tpm2_createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub"},
		{"tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "rsa", "-g", "sha256", "-s", "rsassa", "-u", "ak.pem", "-f", "pem"},
		{"tpm2_evictcontrol", "-C", "o", "-c", "ak.ctx", "0x81010002"},
	} {
		s.tools(dir, args...)
		s.tools(dir, "tpm2_flushcontext", "-t") // without a resource manager nobody else does
	}
	data := handshakeData(t, "bm9uY2U=")
	_, e := look(t, s.attester(), data)
	want, err := os.ReadFile(filepath.Join(dir, "ak.pem"))
	must(t, err)
	block, _ := pem.Decode(want)
	if block == nil || !bytes.Equal(block.Bytes, e.AttestationKey) {
		t.Fatal("the evidence does not have the key at the handle")
	}
	// docs/how-to/tpm.md: the owner reads the key to pin from the handle.
	s.tools(dir, "tpm2_readpublic", "-c", "0x81010002", "-f", "pem", "-o", "pinned.pem")
	pinned, err := os.ReadFile(filepath.Join(dir, "pinned.pem"))
	must(t, err)
	if got := (&owner.TPMReference{AttestationKeys: []string{string(pinned)}}).KeyDigests(); !slices.Equal(got, []string{evidence.KeyDigest(e.AttestationKey)}) {
		t.Errorf("the pinned PEM is %v, the evidence has %s", got, evidence.KeyDigest(e.AttestationKey))
	}
	var registers []byte
	for _, v := range e.Registers {
		registers = append(registers, v[:]...)
	}
	sum := sha256.Sum256(registers)
	if q, err := evidence.ParseTPMQuote(e.Message); err != nil || !bytes.Equal(q.RegisterDigest, sum[:]) {
		t.Fatalf("the registers are not those quoted: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "message"), e.Message, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "signature"), e.Signature, 0o600))
	bound := data.Bytes32()
	s.tools(dir, "tpm2_checkquote", "-u", "ak.pem", "-m", "message", "-s", "signature", "-q", fmt.Sprintf("%x", bound), "-g", "sha256")
	cmd := exec.Command("tpm2_checkquote", "-u", "ak.pem", "-m", "message", "-s", "signature", "-q", strings.Repeat("00", 32), "-g", "sha256")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Fatalf("tpm2_checkquote takes any nonce, so it shows nothing: %s", out)
	}

	// The other way round: their quote in our JSON, judged by keybroker's verifier.
	s.tools(dir, "tpm2_quote", "-c", "0x81010002", "-l", "sha256:all", "-q", fmt.Sprintf("%x", bound), "-g", "sha256", "-m", "theirs", "-s", "theirs.sig")
	theirs := e
	theirs.Message, err = os.ReadFile(filepath.Join(dir, "theirs"))
	must(t, err)
	theirs.Signature, err = os.ReadFile(filepath.Join(dir, "theirs.sig"))
	must(t, err)
	raw, err := theirs.Encode()
	must(t, err)
	judge, err := verifier.New(verifier.Config{})
	must(t, err)
	for _, f := range judge.Verify(verifier.Input{TEE: evidence.TPM, Evidence: raw, ReportData: data, Now: time.Now()}).Findings {
		if slices.Contains([]string{"format", "signature", "report-data", "pcr-selection", "pcr-digest", "event-log"}, f.Rule) && !f.OK {
			t.Errorf("their quote: %+v", f)
		}
	}
}

// A key at the handle that is not fit to attest is no reason to use another.
func TestTPMUnfitKeyIsRefused(t *testing.T) {
	s := startTPM(t)
	dir := t.TempDir()
	s.tools(dir, "tpm2_createprimary", "-C", "o", "-G", "rsa2048", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|decrypt", "-c", "loose.ctx")
	s.tools(dir, "tpm2_flushcontext", "-t")
	s.tools(dir, "tpm2_evictcontrol", "-C", "o", "-c", "loose.ctx", "0x81010002")
	s.tools(dir, "tpm2_flushcontext", "-t")
	if _, err := s.attester().Evidence(t.Context(), handshakeData(t, "bm9uY2U=")); err == nil || !strings.Contains(err.Error(), "not a restricted RSA signing key") {
		t.Fatalf("got %v", err)
	}
}

// busyTPM has somebody beside us who extends a register just before a quote is made.
type busyTPM struct {
	transport.TPMCloser
	times *int
}

func (b busyTPM) Send(command []byte) ([]byte, error) {
	if len(command) > 10 && tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == tpm2.TPMCCQuote && *b.times > 0 {
		*b.times--
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: 16, Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
		}.Execute(b.TPMCloser)
		if err != nil {
			return nil, err
		}
	}
	return b.TPMCloser.Send(command)
}

func TestTPMRegisterThatChangesWhileQuoting(t *testing.T) {
	s := startTPM(t)
	for _, tt := range []struct {
		times int
		want  string
	}{{2, ""}, {3, "registers changed 3 times"}} {
		times := tt.times
		a, err := attest.Detect(attest.Config{TEE: evidence.TPM, TPMEventLog: "/nonexistent", TPM: func() (transport.TPMCloser, error) {
			c, err := s.open()
			return busyTPM{c, &times}, err
		}})
		must(t, err)
		_, err = a.Evidence(t.Context(), handshakeData(t, "bm9uY2U="))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("changed %d times: got %v, want %q", tt.times, err, tt.want)
		}
	}
}
