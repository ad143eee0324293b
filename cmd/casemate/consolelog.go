// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"

	"github.com/casemate/casemate/agent/guest"
)

// consoleLog is the log of the machine's first process, which has nowhere to write
// but the console, and that is the host's to read: of a warning or an error it prints
// the message, a fixed phrase, and the attributes that name a request and a place in
// this program. What an error says, and every value besides, stays in the guest.
type consoleLog struct{ console *guest.Console }

func (consoleLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle prints one line.
func (h consoleLog) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "method", "request", "at":
			if a.Value.Kind() == slog.KindString {
				text += " " + a.Key + "=" + a.Value.String()
			}
		}
		return true
	})
	h.console.Print("log", text)
	return nil
}

// WithAttrs drops the attributes: none that a caller adds for many lines is needed.
func (h consoleLog) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup ignores the group, as the three names need none.
func (h consoleLog) WithGroup(string) slog.Handler { return h }
