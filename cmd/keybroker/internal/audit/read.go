// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/go-json-experiment/json"
)

// MaxRecordSize is a line with every text at its bound and every byte escaped.
const MaxRecordSize = 64 << 10

// Read calls visit with each record in dir, the oldest first. Lines that are not
// records, which a crash can leave, are skipped and counted. An error of visit ends it.
func Read(dir string, visit func(Record) error) (skipped int, err error) {
	l := &Log{dir: dir}
	found := false
	for generation := KeptFiles - 1; generation >= 0; generation-- {
		n, err := readFile(l.name(generation), visit)
		skipped += n
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return skipped, err
		}
		found = true
	}
	if !found {
		return 0, fmt.Errorf("reading audit log: %s: %w", l.name(0), fs.ErrNotExist)
	}
	return skipped, nil
}

func readFile(name string, visit func(Record) error) (skipped int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, fmt.Errorf("opening audit log: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, MaxRecordSize)
	for lines.Scan() {
		var r Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			if len(lines.Bytes()) > 0 {
				skipped++
			}
			continue
		}
		if err := visit(r); err != nil {
			return skipped, err
		}
	}
	if err := lines.Err(); err != nil {
		return skipped, fmt.Errorf("reading audit log %s: %w", name, err)
	}
	return skipped, nil
}
