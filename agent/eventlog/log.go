// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultDir is where attestation-agent keeps its log, in memory.
const DefaultDir = "/run/attestation-agent"

const (
	logName  = "eventlog"
	walName  = ".wal_event_entry"
	lockName = ".lock"

	// maxLog bounds the log; evidence carries it whole, beside the firmware's.
	maxLog = 512 << 10
	// maxForOthers is the share of other programs, counted over the whole log.
	maxForOthers = 128 << 10
)

// ErrFull says that the log, or the share of other programs in it, has no room.
var ErrFull = errors.New("the event log is full")

// Register is what the TEE signs and the guest can only extend.
type Register interface {
	// Number is what entries name it by: 4 for RTMR3 (UEFI 2.10 section 38.4.1), the
	// PCR for a TPM.
	Number() uint32
	// Hash is SHA-384 for an RTMR, SHA-256 for a PCR.
	Hash() crypto.Hash
	// Value reads it: as many bytes as Hash has.
	Value() ([]byte, error)
	// Extend makes it Hash(value ‖ digest).
	Extend(digest []byte) error
}

// Log is the guest's event log. It is safe for concurrent use, by several processes too.
type Log struct {
	dir      string
	register Register // nil: entries are unbound
}

// Open makes dir, completes what a process that died left behind, and checks that the
// log can be read. A nil register is a platform without one.
func Open(dir string, register Register) (*Log, error) {
	l := &Log{dir: dir, register: register}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the event log: %w", err)
	}
	if err := l.locked(func(*os.File, []record) error { return nil }); err != nil {
		return nil, fmt.Errorf("opening the event log: %w", err)
	}
	return l, nil
}

// Bound reports whether entries are extended into a register.
func (l *Log) Bound() bool { return l.register != nil }

// Measure records what this guest itself did. An entry that the log holds already is
// not made again, in whatever process the first one was.
func (l *Log) Measure(domain, operation, content string) error {
	return l.add(Entry{domain, operation, content}, func(all []record, text string) (bool, error) {
		for _, r := range all {
			if r.text == text {
				return true, nil
			}
		}
		return false, nil
	})
}

// MeasureFor records what another program says, as often as it says it, and reports
// whether a register holds it. The caller has kept that program from the guest's own
// domains.
func (l *Log) MeasureFor(domain, operation, content string) (bound bool, err error) {
	err = l.add(Entry{domain, operation, content}, func(all []record, text string) (bool, error) {
		used := len(text)
		for _, r := range all {
			if !own(r.text) {
				used += r.size
			}
		}
		if used > maxForOthers {
			return false, fmt.Errorf("%w: other programs have %d bytes of it", ErrFull, maxForOthers)
		}
		return false, nil
	})
	return err == nil && l.Bound(), err
}

// Domains of the guest's own entries.
const (
	// DomainImages is confidential-data-hub's, which policies know.
	DomainImages = "github.com/confidential-containers"
	// DomainGuest is for what guest-components have no entry for.
	DomainGuest = "casemate"
)

func own(text string) bool {
	return strings.HasPrefix(text, DomainImages+" ") || strings.HasPrefix(text, DomainGuest+" ")
}

// Hold calls f with the entries that a register holds, nil for none, while nobody can
// make another one: a quote that f takes agrees with them.
func (l *Log) Hold(f func(entries []byte) error) error {
	return l.locked(func(file *os.File, all []record) error {
		if l.register == nil || len(all) == 0 {
			return f(nil)
		}
		entries, err := readLog(file)
		if err != nil {
			return err
		}
		return f(entries)
	})
}

// Entries returns the texts of the log, oldest first, "DOMAIN OPERATION CONTENT".
func (l *Log) Entries() ([]string, error) {
	var texts []string
	err := l.locked(func(_ *os.File, all []record) error {
		for _, r := range all {
			texts = append(texts, r.text)
		}
		return nil
	})
	return texts, err
}

// add records e unless known says that it is there.
func (l *Log) add(e Entry, known func(all []record, text string) (bool, error)) error {
	if err := e.Check(); err != nil {
		return err
	}
	text := e.text()
	err := l.locked(func(file *os.File, all []record) error {
		if there, err := known(all, text); there || err != nil {
			return err
		}
		size := 0
		for _, r := range all {
			size += r.size
		}
		number, hash := l.form()
		raw := encode(number, hash, text, l.register != nil)
		if size+len(raw) > maxLog {
			return fmt.Errorf("%w: %d bytes, want at most %d", ErrFull, size+len(raw), maxLog)
		}
		if l.register == nil {
			return appendAt(file, int64(size), raw)
		}
		return l.extend(file, int64(size), text, raw)
	})
	if err != nil {
		return fmt.Errorf("recording in the event log: %w", err)
	}
	return nil
}

// form is how entries are written; unbound ones look like RTMR3's.
func (l *Log) form() (number uint32, hash crypto.Hash) {
	if l.register == nil {
		return rtmr3Number, crypto.SHA384
	}
	return l.register.Number(), l.register.Hash()
}

// locked runs f alone among all processes, on a log without an interrupted entry.
func (l *Log) locked(f func(file *os.File, all []record) error) (err error) {
	lock, err := os.OpenFile(filepath.Join(l.dir, lockName), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // gives the lock up
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(l.dir, logName), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := l.complete(file); err != nil {
		return err
	}
	raw, err := readLog(file)
	if err != nil {
		return err
	}
	number, hash := l.form()
	all, err := decodeAll(raw, number, hash)
	if errors.Is(err, errCut) && l.register == nil {
		// Nothing was measured, so nothing is lost with the piece of an entry.
		size := 0
		for _, r := range all {
			size += r.size
		}
		err = file.Truncate(int64(size))
	}
	if err != nil {
		return err
	}
	return f(file, all)
}

func readLog(file *os.File) ([]byte, error) {
	raw, err := io.ReadAll(io.NewSectionReader(file, 0, maxLog+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxLog {
		return nil, fmt.Errorf("the event log is over %d bytes", maxLog)
	}
	return raw, nil
}

func appendAt(file *os.File, offset int64, raw []byte) error {
	if err := file.Truncate(offset); err != nil {
		return err
	}
	_, err := file.WriteAt(raw, offset)
	return err
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
