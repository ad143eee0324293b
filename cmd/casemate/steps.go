// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"
)

// steps tells the person who waits what is being done and what it took. Names are
// ours, never the image's or the relying party's.
type steps struct {
	w io.Writer
	// line keeps what was waited for; the zero value keeps nothing.
	line timeline
}

func (s steps) do(name string, step func() error) error {
	return s.measure(name, func(*stage) error { return step() })
}

// measure is do for a step that says more of itself than its time.
func (s steps) measure(name string, step func(took *stage) error) error {
	start, at := time.Now(), sinceStart()
	took := stage{Name: name, At: at.Microseconds()}
	err := step(&took)
	took.Took, took.Failed = time.Since(start).Microseconds(), err != nil
	s.line.add(took)
	if err != nil {
		return err
	}
	if c, ok := s.w.(consoleSteps); ok {
		c.step(name, start)
		return nil
	}
	fmt.Fprintf(s.w, "casemate: %-42s %8.1f ms\n", name, float64(time.Since(start).Microseconds())/1000)
	return nil
}

func (s steps) say(format string, args ...any) {
	fmt.Fprintf(s.w, "casemate: "+format+"\n", args...)
}
