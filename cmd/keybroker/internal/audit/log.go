// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxFileSize and KeptFiles bound the log at 512 MiB, about a million denials.
	MaxFileSize = 64 << 20
	KeptFiles   = 8

	fileName = "audit.log"
)

// Log appends records. It is safe for concurrent use.
type Log struct {
	dir    string
	logger *slog.Logger
	max    int64

	mu   sync.Mutex // guards the fields below
	file *os.File   // nil after a rotation that failed
	size int64
	torn bool // the last record may be there in part
}

// Open opens the log in dir, which exists. Each record also goes to logger. The caller
// closes the Log.
func Open(dir string, logger *slog.Logger) (*Log, error) {
	l := &Log{dir: dir, logger: logger, max: MaxFileSize}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Log) name(generation int) string {
	if generation == 0 {
		return filepath.Join(l.dir, fileName)
	}
	return filepath.Join(l.dir, fmt.Sprintf("%s.%d", fileName, generation))
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.name(0), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening audit log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("opening audit log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	if err := l.endLine(); err != nil {
		l.file = nil
		return errors.Join(err, f.Close())
	}
	return nil
}

// endLine ends a line that a crash cut short, so that the next record has its own.
func (l *Log) endLine() error {
	if l.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := l.file.ReadAt(last, l.size-1); err != nil {
		return fmt.Errorf("reading audit log: %w", err)
	}
	if last[0] == '\n' {
		return nil
	}
	n, err := l.file.Write([]byte{'\n'})
	l.size += int64(n)
	return err
}

// Write appends r with the current time. On an error the record may be missing, and
// the caller must not go on with what it recorded.
func (l *Log) Write(r Record) error {
	r.Time = time.Now().UTC()
	r.cut()
	// Text from peers need not be UTF-8; what is not is replaced.
	line, err := json.Marshal(r, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return fmt.Errorf("encoding audit record: %w", err)
	}
	l.print(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(); err != nil {
		return err
	}
	n, err := l.file.Write(append(line, '\n'))
	l.size += int64(n)
	if err != nil {
		l.torn = true
		return fmt.Errorf("writing audit log: %w", err)
	}
	return nil
}

// ready makes a line's place, whatever became of the line before.
func (l *Log) ready() error {
	if l.file == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if l.torn {
		if err := l.endLine(); err != nil {
			return fmt.Errorf("writing audit log: %w", err)
		}
		l.torn = false
	}
	if l.size < l.max {
		return nil
	}
	return l.rotate()
}

// rotate moves each file one generation on.
func (l *Log) rotate() error {
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("closing audit log: %w", err)
	}
	for generation := KeptFiles - 1; generation > 0; generation-- {
		err := os.Rename(l.name(generation-1), l.name(generation))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotating audit log: %w", err)
		}
	}
	return l.open()
}

// print shows the record on the keybroker's own output.
func (l *Log) print(r Record) {
	level, verdict := slog.LevelInfo, "allow"
	if !r.Allowed {
		level, verdict = slog.LevelWarn, "deny"
	}
	attrs := []slog.Attr{slog.String("verdict", verdict)}
	for _, a := range []struct{ key, value string }{
		{"id", r.ID}, {"workload", r.Workload}, {"tee", string(r.TEE)}, {"devices", r.Devices}, {"attestation_key", r.AttestationKey}, {"resource", r.Resource}, {"measurement", r.Measurement},
		{"initdata", r.InitData}, {"rule", r.Rule}, {"wanted", r.Wanted}, {"found", r.Found}, {"also", strings.Join(r.Also, ",")},
		{"note", r.Note}, {"remote", r.Remote},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, a.value))
		}
	}
	if r.TestRoot {
		attrs = append(attrs, slog.Bool("test_root", true))
	}
	l.logger.LogAttrs(context.Background(), level, string(r.Event), attrs...)
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("closing audit log: %w", err)
	}
	return nil
}
