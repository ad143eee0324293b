// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

// logFilter says which records to print.
type logFilter struct {
	workload string
	id       string
	denied   bool
}

func (f logFilter) shows(r audit.Record) bool {
	return (f.workload == "" || f.workload == r.Workload) && (f.id == "" || f.id == r.ID) && !(f.denied && r.Allowed)
}

func newLog(s streams) *cobra.Command {
	var state string
	var filter logFilter
	var asJSON bool
	var guest string
	c := &cobra.Command{
		Use:   "log --state DIR",
		Short: "Print what was decided and why, from the state directory",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			if state == "" {
				return usagef("--state is required")
			}
			if guest != "" {
				return printGuest(s, state, guest, asJSON)
			}
			return printLog(s, state, filter, asJSON)
		},
	}
	flags := c.Flags()
	flags.StringVar(&state, "state", "", "state directory of the keybroker (required)")
	flags.StringVar(&filter.workload, "workload", "", "only records of this workload")
	flags.StringVar(&filter.id, "id", "", "only records of this correlation id, which a refused guest is told")
	flags.StringVar(&guest, "guest", "", "print what the guest of this correlation id said of itself and of what was refused or failed in it, which nothing proves")
	flags.BoolVar(&filter.denied, "denied", false, "only denials")
	flags.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return c
}

func printLog(s streams, state string, filter logFilter, asJSON bool) error {
	lines := json.NewEncoder(s.out)
	lines.SetEscapeHTML(false)
	skipped, err := audit.Read(state, func(r audit.Record) error {
		if !filter.shows(r) {
			return nil
		}
		if asJSON {
			return lines.Encode(r)
		}
		return printRecord(s.out, r)
	})
	if skipped > 0 {
		fmt.Fprintf(s.err, "%d lines are not records, as a crash leaves them\n", skipped)
	}
	return err
}

// printReport prints JSON in ASCII: a guest chose every byte of it.
func printReport(out io.Writer, report []byte) error {
	text := jsontext.Value(report)
	if err := text.Indent(jsontext.WithIndent("  ")); err != nil {
		return fmt.Errorf("reading a guest's report: %w", err)
	}
	_, err := fmt.Fprintln(out, ascii(string(text)))
	return err
}

// ascii escapes all of a JSON text that is not printable ASCII.
func ascii(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || r >= ' ' && r <= '~' {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// printRecord quotes what a guest or its host chose, which may try to move a terminal.
func printRecord(out io.Writer, r audit.Record) error {
	verdict := "deny "
	if r.Allowed {
		verdict = "allow"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", r.Time.UTC().Format(time.RFC3339), verdict, r.Event)
	for _, field := range []struct{ name, value string }{
		{"workload", r.Workload}, {"tee", string(r.TEE)}, {"devices", r.Devices}, {"key", r.AttestationKey}, {"resource", r.Resource}, {"note", r.Note}, {"id", r.ID}, {"from", r.Remote},
	} {
		if field.value != "" {
			fmt.Fprintf(&b, " %s=%s", field.name, plain(field.value))
		}
	}
	if r.TestRoot {
		b.WriteString(" TEST ROOT")
	}
	b.WriteByte('\n')
	if r.Rule != "" {
		fmt.Fprintf(&b, "    rule   %s\n    wanted %s\n    found  %s\n", plain(r.Rule), plain(r.Wanted), plain(r.Found))
	}
	if len(r.Also) > 0 {
		fmt.Fprintf(&b, "    also   %s\n", plain(strings.Join(r.Also, ", ")))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func plain(text string) string {
	quoted := fmt.Sprintf("%+q", text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
