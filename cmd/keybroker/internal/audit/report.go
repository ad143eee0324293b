// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	reportDir = "reports"
	// refusedDir is for what anybody can send who opens sessions: however much it is, it
	// takes no place of a guest that was accepted.
	refusedDir = "reports-refused"
	// maxReports of evidence.MaxGuestReport each, in either: 16 MiB.
	maxReports = 256
)

// reportID is a correlation id, which is a file's name here.
var reportID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// KeepReport keeps what a guest said of itself, a JSON document, under the id of its
// handshake, which was accepted or not. It proves nothing: whoever opened the session wrote
// it. The oldest make room for those of the same kind.
func (l *Log) KeepReport(id string, accepted bool, report []byte) error {
	if !reportID.MatchString(id) {
		return fmt.Errorf("keeping a guest's report: id %.32q", id)
	}
	dir := filepath.Join(l.dir, reportDir)
	if !accepted {
		dir = filepath.Join(l.dir, refusedDir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keeping a guest's report: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := dropOldest(dir); err != nil {
		return fmt.Errorf("keeping a guest's report: %w", err)
	}
	name := filepath.Join(dir, id+".json")
	if err := os.WriteFile(name+".new", report, 0o600); err != nil {
		return errors.Join(fmt.Errorf("keeping a guest's report: %w", err), os.Remove(name+".new"))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("keeping a guest's report: %w", err)
	}
	return nil
}

func dropOldest(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < maxReports {
		return err
	}
	infos := make([]fs.FileInfo, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), strings.Compare(a.Name(), b.Name()))
	})
	for _, info := range infos[:len(infos)-maxReports+1] {
		if err := os.Remove(filepath.Join(dir, info.Name())); err != nil {
			return err
		}
	}
	return nil
}

// ErrNoReport says that there is none.
var ErrNoReport = errors.New("no report of a guest")

// ReadReport returns the report of a handshake in the state directory dir.
func ReadReport(dir, id string) ([]byte, error) {
	if !reportID.MatchString(id) {
		return nil, fmt.Errorf("reading a guest's report: id %q, want 16 hex digits", id)
	}
	text, err := os.ReadFile(filepath.Join(dir, reportDir, id+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		text, err = os.ReadFile(filepath.Join(dir, refusedDir, id+".json"))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w with id %s: it sent none, or newer ones took its place", ErrNoReport, id)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a guest's report: %w", err)
	}
	return text, nil
}
