// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	// tpmLogPath is where Linux shows the firmware's event log.
	tpmLogPath = "/sys/kernel/security/tpm0/binary_bios_measurements"

	// tpmBatch is how many registers one TPM2_PCR_Read returns at most.
	tpmBatch = 8
)

// TPMOpener connects to a TPM 2.0. Whoever calls it closes what it returns.
type TPMOpener func() (transport.TPMCloser, error)

// openTPM prefers the kernel's resource manager, which flushes what a dead process left.
func openTPM() (transport.TPMCloser, error) {
	var failed []error
	for _, path := range []string{"/dev/tpmrm0", "/dev/tpm0"} {
		t, err := linuxtpm.Open(path)
		if err == nil {
			return t, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// tpmAttester is a machine with a TPM 2.0. It is only made when measured configuration asks
// for it by name, as the TEE, which no hardware report binds, or as a device, whose
// evidence the report of the TEE binds: in place of a TEE it would be a fallback to
// something weaker.
type tpmAttester struct {
	open     TPMOpener
	eventLog string
	runtime  RuntimeLog // nil for none
	log      *slog.Logger

	mu sync.Mutex // held while the TPM is open: /dev/tpm0 takes one user
}

func newTPM(cfg Config) (Attester, error) {
	a, err := openTPMAttester(cfg)
	if err != nil {
		return nil, err
	}
	cfg.Log.Warn("PLAIN TPM: nothing protects this guest's memory from its host, and the evidence is worth what its TPM's maker is")
	return a, nil
}

func openTPMAttester(cfg Config) (*tpmAttester, error) {
	a := &tpmAttester{open: cfg.TPM, eventLog: cfg.TPMEventLog, runtime: cfg.Runtime, log: cfg.Log}
	if a.open == nil {
		a.open = openTPM
	}
	if a.eventLog == "" {
		a.eventLog = tpmLogPath
	}
	// Found out now, not at the first handshake.
	if err := a.use(context.Background(), func(transport.TPM) error { return nil }); err != nil {
		return nil, fmt.Errorf("detecting a TPM: %w", err)
	}
	return a, nil
}

func (*tpmAttester) TEE() evidence.TEE { return evidence.TPM }

// use runs f with the TPM open. A TPM cannot be interrupted, so ctx is asked before.
func (a *tpmAttester) use(ctx context.Context, f func(transport.TPM) error) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t, err := a.open()
	if err != nil {
		return fmt.Errorf("opening TPM: %w", err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	return f(t)
}

func (a *tpmAttester) Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error) {
	if r.IsZero() {
		return nil, fmt.Errorf("making TPM evidence: %w", errNoReportData)
	}
	var e evidence.TPMEvidence
	take := func(entries []byte) error {
		err := a.use(ctx, func(t transport.TPM) (err error) {
			key, err := openKey(t)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, key.close(t)) }()
			data := r.Bytes32()
			e, err = quote(t, key, data[:])
			return err
		})
		if err == nil {
			e.EventLog, err = a.wholeLog(entries)
		}
		return err
	}
	var err error
	if a.runtime == nil {
		err = take(nil)
	} else {
		err = a.runtime.Hold(take)
	}
	if err != nil {
		return nil, fmt.Errorf("making TPM evidence: %w", err)
	}
	return e.Encode()
}

// wholeLog is the firmware's log and behind it the guest's own entries, nil for neither.
func (a *tpmAttester) wholeLog(entries []byte) ([]byte, error) {
	log, err := a.readLog()
	if err != nil || len(entries) == 0 {
		return log, err
	}
	if log == nil {
		log = emptyLogHead()
	}
	log = append(log[:len(log):len(log)], entries...)
	if len(log) > evidence.MaxEventLogSize {
		return nil, fmt.Errorf("event log of %d bytes, at most %d allowed", len(log), evidence.MaxEventLogSize)
	}
	return log, nil
}

// EventRegister is the PCR for the guest's own event log.
type EventRegister struct{ a *tpmAttester }

// TPMEvents returns the register of a's TPM, false where a's evidence would not carry the
// log: everywhere but on a plain TPM.
func TPMEvents(a Attester) (EventRegister, bool) {
	plain, ok := a.(*tpmAttester)
	return EventRegister{plain}, ok
}

// Number is that of the PCR.
func (EventRegister) Number() uint32 { return evidence.TPMEventRegister }

// Hash is SHA-256.
func (EventRegister) Hash() crypto.Hash { return crypto.SHA256 }

// Value reads its 32 bytes.
func (r EventRegister) Value() (value []byte, err error) {
	err = r.a.use(context.Background(), func(t transport.TPM) error {
		values, err := readRegisters(t)
		value = values[evidence.TPMEventRegister][:]
		return err
	})
	return value, err
}

// Extend takes a digest of 32 bytes.
func (r EventRegister) Extend(digest []byte) error {
	return r.a.use(context.Background(), func(t transport.TPM) error { return extend(t, evidence.TPMEventRegister, digest) })
}

// quote asks for a quote over all registers. They are read apart from it, so a register
// that changes in between is noticed and both are asked for again.
func quote(t transport.TPM, key *tpmKey, data []byte) (e evidence.TPMEvidence, err error) {
	e.AttestationKey = key.spki
	for range maxRaces {
		if e.Registers, err = readRegisters(t); err != nil {
			return e, err
		}
		resp, err := tpm2.Quote{
			SignHandle:     key.handle(),
			QualifyingData: tpm2.TPM2BData{Buffer: data},
			InScheme:       rsaSSA(),
			PCRSelect:      selectRegisters(0, evidence.TPMRegisters),
		}.Execute(t)
		if err != nil {
			return e, fmt.Errorf("quoting: %w", err)
		}
		if resp.Signature.SigAlg != tpm2.TPMAlgRSASSA {
			return e, fmt.Errorf("quoting: signature by algorithm %#x, want RSASSA", uint16(resp.Signature.SigAlg))
		}
		e.Message, e.Signature = resp.Quoted.Bytes(), tpm2.Marshal(resp.Signature)
		q, err := evidence.ParseTPMQuote(e.Message)
		if err != nil {
			return e, err
		}
		// Not verification: it catches a quote that was made for somebody else's request.
		if !bytes.Equal(q.ExtraData, data) || !q.WholeBank() {
			return e, errors.New("the quote is bound to other data or registers than asked for")
		}
		if want := e.Registers.Digest(); bytes.Equal(q.RegisterDigest, want[:]) {
			return e, nil
		}
	}
	return e, fmt.Errorf("quoting: registers changed %d times between reading and quoting", maxRaces)
}

func selectRegisters(from, to uint) tpm2.TPMLPCRSelection {
	var list []uint
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(list...),
	}}}
}

func readRegisters(t transport.TPM) (values evidence.TPMRegisterValues, err error) {
	for from := 0; from < len(values); from += tpmBatch {
		resp, err := tpm2.PCRRead{PCRSelectionIn: selectRegisters(uint(from), uint(from+tpmBatch))}.Execute(t)
		if err != nil {
			return values, fmt.Errorf("reading registers: %w", err)
		}
		if n := len(resp.PCRValues.Digests); n != tpmBatch {
			return values, fmt.Errorf("reading registers: %d values from register %d on, want %d: has the TPM a SHA-256 bank?", n, from, tpmBatch)
		}
		for i, digest := range resp.PCRValues.Digests {
			if len(digest.Buffer) != sha256.Size {
				return values, fmt.Errorf("reading registers: register %d has %d bytes, want %d", from+i, len(digest.Buffer), sha256.Size)
			}
			copy(values[from+i][:], digest.Buffer)
		}
	}
	return values, nil
}

// RecordInitData extends PCR 8 with digest, 32 bytes, or only requires that nothing is in
// it when digest is nil. A register that holds exactly this digest already is left alone:
// the guest's program was started again. Any other value is refused. All this keeps an
// honest guest from evidence that is refused later; who compares is the relying party.
func (a *tpmAttester) RecordInitData(ctx context.Context, digest []byte) error {
	if digest != nil && len(digest) != sha256.Size {
		return fmt.Errorf("recording initdata: digest of %d bytes, want %d: the algorithm must be sha256", len(digest), sha256.Size)
	}
	var zero [sha256.Size]byte
	err := a.use(ctx, func(t transport.TPM) error {
		values, err := readRegisters(t)
		if err != nil {
			return err
		}
		got := values[evidence.TPMInitDataRegister]
		if digest == nil {
			return requireRegister(got, zero)
		}
		want := evidence.ExtendTPM(zero, digest)
		if got == want {
			return nil
		}
		if err := requireRegister(got, zero); err != nil {
			return err
		}
		if err := extend(t, evidence.TPMInitDataRegister, digest); err != nil {
			return err
		}
		if values, err = readRegisters(t); err != nil {
			return err
		}
		return requireRegister(values[evidence.TPMInitDataRegister], want)
	})
	if err != nil {
		return fmt.Errorf("recording initdata: %w", err)
	}
	return nil
}

func requireRegister(got, want [sha256.Size]byte) error {
	if got != want {
		return fmt.Errorf("PCR %d is %x, want %x", evidence.TPMInitDataRegister, got, want)
	}
	return nil
}

func extend(t transport.TPM, index uint32, digest []byte) error {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(index), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest}}},
	}.Execute(t)
	if err != nil {
		return fmt.Errorf("extending PCR %d: %w", index, err)
	}
	return nil
}

// readLog returns the firmware's event log, nil when the kernel shows none or one of the
// old form, which has no SHA-256 digests.
func (a *tpmAttester) readLog() ([]byte, error) {
	f, err := os.Open(a.eventLog)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading event log: %w", err)
	}
	defer f.Close()
	log, err := io.ReadAll(io.LimitReader(f, evidence.MaxEventLogSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading event log: %w", err)
	}
	if len(log) > evidence.MaxEventLogSize {
		return nil, fmt.Errorf("reading event log %s: more than %d bytes", a.eventLog, evidence.MaxEventLogSize)
	}
	if len(log) == 0 {
		return nil, nil
	}
	if _, err := evidence.ReplayTPMLog(log); err != nil {
		a.log.Warn("evidence goes without the firmware's event log", "path", a.eventLog, "reason", err)
		return nil, nil
	}
	return log, nil
}
