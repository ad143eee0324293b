// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

const (
	incidentDir = "incidents"
	// maxIncidentFile is what a file holds before the next is begun, but for one message. A guest has three: the first,
	// which stays, and two that take turns, so that a flood hides neither what it began with nor what is new.
	maxIncidentFile = 64 << 10
	// maxIncidentGuests in all, each with three files of maxIncidentFile and a message: at most 160 MiB. Of the workload
	// with the most guests the oldest makes room.
	maxIncidentGuests = 256
	// maxIncidentLine is one with what keybroker adds.
	maxIncidentLine = evidence.MaxIncident + 256
)

// The files of a guest, in the order in which they are read.
const (
	incidentsFirst = ".first"
	incidentsOld   = ".old"
	incidentsNew   = ".new"
)

// KeptIncident is what a guest said of one incident. Its attestation says who wrote it; nothing proves that it is true.
type KeptIncident struct {
	Received time.Time         `json:"received"`
	Workload string            `json:"workload"`
	Dropped  uint64            `json:"dropped,omitzero"` // as in evidence.Incidents
	Incident evidence.Incident `json:"incident"`
}

// KeepIncidents keeps what the guest of the accepted handshake id told, in files of its own below the state directory.
// However much it tells, and however many guests do, the files stay within their bounds.
func (l *Log) KeepIncidents(workload, id string, m evidence.Incidents) error {
	if !reportID.MatchString(id) || owner.CheckID(workload) != nil {
		return fmt.Errorf("keeping incidents: id %.32q of workload %.32q", id, workload)
	}
	var lines []byte
	for _, i := range m.List {
		line, err := json.Marshal(KeptIncident{Received: time.Now().UTC(), Workload: workload, Dropped: m.Dropped, Incident: i})
		if err != nil {
			return fmt.Errorf("keeping incidents: %w", err)
		}
		// A line has its end in front: the piece that a full disk took of the last one is no part of it.
		lines = append(append(lines, '\n'), line...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.appendIncidents(filepath.Join(l.dir, incidentDir, workload), id, lines); err != nil {
		return fmt.Errorf("keeping incidents: %w", err)
	}
	return nil
}

func (l *Log) appendIncidents(dir, id string, lines []byte) error {
	first, old, newest := filepath.Join(dir, id+incidentsFirst), filepath.Join(dir, id+incidentsOld), filepath.Join(dir, id+incidentsNew)
	size, err := fileSize(first)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(os.MkdirAll(dir, 0o700), dropOldestGuest(filepath.Dir(dir)))
	}
	if err != nil {
		return err
	}
	if size < maxIncidentFile {
		return appendFile(first, lines)
	}
	size, err = fileSize(newest)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if size >= maxIncidentFile {
		if err := os.Rename(newest, old); err != nil {
			return err
		}
	}
	return appendFile(newest, lines)
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func appendFile(path string, raw []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	return errors.Join(err, f.Close())
}

// guestFile is a guest's first file.
type guestFile struct {
	dir, id string
	begun   time.Time // when it was last written to
}

// dropOldestGuest makes room for one more guest below root.
func dropOldestGuest(root string) error {
	paths, err := filepath.Glob(filepath.Join(globQuoted(root), "*", "*"+incidentsFirst))
	if err != nil || len(paths) < maxIncidentGuests {
		return err
	}
	workloads := map[string][]guestFile{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		workloads[dir] = append(workloads[dir], guestFile{dir, strings.TrimSuffix(filepath.Base(path), incidentsFirst), info.ModTime()})
	}
	for left := len(paths); left >= maxIncidentGuests; left-- {
		var most []guestFile
		for _, list := range workloads {
			if len(list) > len(most) {
				most = list
			}
		}
		oldest := slices.MinFunc(most, func(a, b guestFile) int {
			return cmp.Or(a.begun.Compare(b.begun), strings.Compare(a.id, b.id))
		})
		workloads[oldest.dir] = slices.DeleteFunc(most, func(f guestFile) bool { return f == oldest })
		// The first file last: without it the others are not found again.
		for _, end := range []string{incidentsNew, incidentsOld, incidentsFirst} {
			if err := os.Remove(filepath.Join(oldest.dir, oldest.id+end)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// ReadIncidents returns what the guest of a handshake told, in the state directory dir, in the order in which it was
// received; none is no error. A line that a crash cut is passed over.
func ReadIncidents(dir, id string) ([]KeptIncident, error) {
	if !reportID.MatchString(id) {
		return nil, fmt.Errorf("reading incidents: id %q, want 16 hex digits", id)
	}
	var list []KeptIncident
	for _, end := range []string{incidentsFirst, incidentsOld, incidentsNew} {
		paths, err := filepath.Glob(filepath.Join(globQuoted(dir), incidentDir, "*", id+end))
		if err != nil {
			return nil, fmt.Errorf("reading incidents: %w", err)
		}
		for _, path := range paths {
			if list, err = readIncidentFile(list, path); err != nil {
				return nil, fmt.Errorf("reading incidents: %w", err)
			}
		}
	}
	return list, nil
}

// globQuoted is a pattern for dir itself.
func globQuoted(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

func readIncidentFile(list []KeptIncident, path string) ([]KeptIncident, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil // a keybroker moved it meanwhile
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxIncidentLine)
	for lines.Scan() {
		var k KeptIncident
		if json.Unmarshal(lines.Bytes(), &k, json.RejectUnknownMembers(true)) == nil {
			list = append(list, k)
		}
	}
	return list, lines.Err()
}
