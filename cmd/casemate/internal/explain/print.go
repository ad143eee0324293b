// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// PrintJSON writes the explanation as one JSON document.
func (x *Explanation) PrintJSON(w io.Writer) error {
	if err := json.MarshalWrite(w, x, jsontext.WithIndent("  ")); err != nil {
		return fmt.Errorf("printing the explanation: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// Print writes it for a person.
func (x *Explanation) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "attestation to %s at %s by the guest's clock, %.1f ms\n", plain(x.KBS), x.Began.UTC().Format(time.RFC3339), float64(x.Micros)/1000)
	if len(x.Claims) == 0 {
		b.WriteString("nothing was sent\n")
	} else {
		b.WriteString("sent\n")
	}
	for _, c := range x.Claims {
		row(&b, c.Name, c.Value)
		if c.Note != "" {
			row(&b, "", "("+c.Note+")")
		}
	}
	x.outcome(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (x *Explanation) outcome(b *strings.Builder) {
	switch {
	case x.Outcome == Accepted:
		b.WriteString("accepted\n")
		if x.TestRoot {
			row(b, "", "(on a TEST ROOT: it proves nothing about hardware)")
		}
	case x.Outcome == Failed:
		b.WriteString("failed\n")
		row(b, "reason", x.Reason)
		return
	case x.Rule == "":
		b.WriteString("refused\n")
		row(b, "reason", x.Reason)
		return
	default:
		fmt.Fprintf(b, "refused by rule %q\n", x.Rule)
	}
	for _, f := range []struct{ name, value string }{
		{"workload", x.Workload}, {"reference", x.Reference}, {"claim", x.Claim}, {"sent", x.Sent},
		{"wanted", x.Wanted}, {"found", x.Found}, {"also", strings.Join(x.Also, ", ")},
	} {
		if f.value != "" {
			row(b, f.name, f.value)
		}
	}
	if x.Outcome != Refused || x.Wanted != "" {
		return
	}
	switch {
	case x.audited:
		row(b, "wanted", "the audit log that was given has no record of this handshake")
	case x.Reference != "":
		row(b, "wanted", "the relying party tells its owner alone: keybroker log --state DIR --id "+x.Reference+" --json > FILE, then --audit FILE")
	}
}

func row(b *strings.Builder, name, value string) {
	fmt.Fprintf(b, "  %-15s %s\n", name, plain(value))
}

// plain keeps what others wrote from moving a terminal.
func plain(text string) string {
	quoted := fmt.Sprintf("%+q", text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
