// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/casemate/casemate/storage"
)

// watched is a formatter that tells how far it has come. Each write is given to
// tell with the sum of all before it.
type watched struct {
	storage.Formatter
	tell func(done, size int64)
}

// Format writes through w.
func (f watched) Format(w io.WriterAt, size int64) error {
	watched := &watchedWriter{WriterAt: w, tell: func(done int64) { f.tell(done, size) }}
	err := f.Formatter.Format(watched, size)
	if err == nil && watched.done != size { // a file system's own blocks are fewer
		f.tell(size, size)
	}
	return err
}

type watchedWriter struct {
	io.WriterAt
	done int64
	tell func(done int64)
}

func (w *watchedWriter) WriteAt(b []byte, at int64) (int, error) {
	n, err := w.WriterAt.WriteAt(b, at)
	w.done += int64(n)
	w.tell(w.done)
	return n, err
}

// drawFormat rewrites the terminal's current line once a percent; the last wipes it.
func drawFormat(w io.Writer) func(done, size int64) {
	shown := int64(-1)
	return func(done, size int64) {
		percent := done / max(size/100, 1)
		switch {
		case done == size:
			fmt.Fprint(w, "\r\x1b[K")
		case percent != shown:
			shown = percent
			fmt.Fprintf(w, "\r\x1b[Kcasemate: %3d%%  %d of %d MB", percent, done/1e6, size/1e6)
		}
	}
}
