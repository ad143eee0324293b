// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull"
)

// progress returns what draws a pull's line on a terminal, nil elsewhere: in a
// file the log's lines tell of long pulls.
func (s steps) progress() func(imagepull.Progress) {
	file := s.terminal()
	if file == nil {
		return nil
	}
	return func(p imagepull.Progress) { drawProgress(file, p) }
}

// terminal is where steps are told, if that is a terminal, and otherwise nil.
func (s steps) terminal() *os.File {
	file, ok := s.w.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return file
}

// drawProgress rewrites the terminal's current line; the last one, when all
// layers are there, wipes it.
func drawProgress(w io.Writer, p imagepull.Progress) {
	const wipe = "\r\x1b[K"
	if p.Unpacked == p.Layers {
		fmt.Fprint(w, wipe)
		return
	}
	percent := int64(100)
	if p.Bytes > 0 {
		percent = 100 * p.Fetched / p.Bytes
	}
	rate := float64(p.Fetched) / max(p.Elapsed.Seconds(), 0.001) / 1e6
	fmt.Fprintf(w, wipe+"casemate: %3d%%  %d of %d MB  %d of %d layers  %.1f MB/s", percent, p.Fetched/1e6, p.Bytes/1e6, p.Unpacked, p.Layers, rate)
}
