// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// PrintJSON writes machine, nil for none, and platform, if it is one, as one document.
func PrintJSON(w io.Writer, m *Machine, p Platform) error {
	out := struct {
		Machine  *Machine  `json:"machine,omitempty"`
		Platform *Platform `json:"platform,omitempty"`
	}{Machine: m}
	if p.ID != "" {
		out.Platform = &p
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

// Print writes what was found on the machine.
func (m *Machine) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "machine: %s, as the host names it\n", plain(orNone(m.Vendor)))
	for _, f := range m.Findings {
		mark := "ok  "
		if !f.OK {
			mark = "look"
		}
		fmt.Fprintf(&b, "  %s  %-22s %s\n", mark, f.What, plain(f.Text))
	}
	if m.Platform == "" {
		b.WriteString("platform: none that is known; nothing can be proved about this machine\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Print writes what proves what on the platform.
func (p Platform) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "platform: %s (%s)\n", p.Title, p.ID)
	for _, proof := range p.Proofs {
		fmt.Fprintf(&b, "  %-9s proved by  %s\n  %-9s signed by  %s\n", proof.Part, proof.By, "", proof.Signer)
	}
	if !p.Served {
		b.WriteString("  casemate makes no evidence here yet\n")
	}
	fmt.Fprintf(&b, "  %s\n", p.Note)
	_, err := io.WriteString(w, b.String())
	return err
}

// plain keeps what the host wrote from moving a terminal.
func plain(text string) string {
	quoted := fmt.Sprintf("%+q", text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
