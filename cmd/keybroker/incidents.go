// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

// printGuest prints what the guest of a handshake said: of itself, which is JSON, and of what was refused or failed in
// it. It is an error only where there is neither.
func printGuest(s streams, state, id string, asJSON bool) error {
	incidents, err := audit.ReadIncidents(state, id)
	if err != nil {
		return err
	}
	report, err := audit.ReadReport(state, id)
	if err != nil && (len(incidents) == 0 || !errors.Is(err, audit.ErrNoReport)) {
		return err
	}
	if asJSON {
		return printGuestJSON(s.out, report, incidents)
	}
	if report != nil {
		if err := printReport(s.out, report); err != nil {
			return err
		}
	}
	return printIncidents(s.out, incidents)
}

// printGuestJSON writes one document in ASCII.
func printGuestJSON(out io.Writer, report []byte, incidents []audit.KeptIncident) error {
	raw, err := json.Marshal(struct {
		Report    jsontext.Value       `json:"report,omitempty"`
		Incidents []audit.KeptIncident `json:"incidents"`
	}{report, incidents})
	if err != nil {
		return fmt.Errorf("printing what a guest said: %w", err)
	}
	_, err = io.WriteString(out, ascii(string(raw))+"\n")
	return err
}

// printIncidents prints them for a person. A guest chose every text, so that each is quoted.
func printIncidents(out io.Writer, list []audit.KeptIncident) error {
	var b strings.Builder
	var seen, dropped uint64
	for _, k := range list {
		i := k.Incident
		if seen > 0 && i.Seq > seen+1 {
			fmt.Fprintf(&b, "(%d incidents before the next were not kept, or are shown elsewhere)\n", i.Seq-seen-1)
		}
		seen, dropped = i.Seq, max(dropped, k.Dropped)
		fmt.Fprintf(&b, "%s %s", happened(k).Format(time.RFC3339), plain(i.Stage))
		for _, text := range []string{i.Request, i.Subject} {
			if text != "" {
				b.WriteString(" " + plain(text))
			}
		}
		if i.Repeated > 0 {
			fmt.Fprintf(&b, " (and %d times more)", i.Repeated)
		}
		b.WriteByte('\n')
		guestRow(&b, "error", i.Error)
		guestRow(&b, "remedy", i.Remedy)
		for n, c := range i.Conditions {
			if n > 0 {
				b.WriteString("  or\n")
			}
			guestRow(&b, "rule", strings.Join(c.Rules, " > "))
			if c.Line > 0 {
				guestRow(&b, "condition", fmt.Sprintf("line %d: %s", c.Line, c.Condition))
			}
			guestRow(&b, "field", c.Field)
			guestRow(&b, "given", c.Given)
			for _, w := range c.Wanted {
				guestRow(&b, "wanted", w)
			}
		}
		for _, line := range i.Prints {
			guestRow(&b, "printed", line)
		}
	}
	if dropped > 0 {
		fmt.Fprintf(&b, "(the guest could not keep %d incidents)\n", dropped)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// happened is when keybroker received it, less what the guest says has passed since; never by a guest's own date.
func happened(k audit.KeptIncident) time.Time {
	const longest = 10 * 365 * 24 * time.Hour
	return k.Received.UTC().Add(-min(longest, time.Duration(min(k.Incident.Ago, longest.Microseconds()))*time.Microsecond))
}

// guestRow prints a line with a name in front, none for an empty text.
func guestRow(b *strings.Builder, name, text string) {
	if text != "" {
		fmt.Fprintf(b, "    %-9s %s\n", name, plain(text))
	}
}
