// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"fmt"
	"regexp"

	"github.com/go-json-experiment/json"
)

// verdict is what a line of keybroker's audit log says of a rule.
type verdict struct {
	ID       string   `json:"id"`
	Event    string   `json:"event"`
	Allowed  bool     `json:"allowed"`
	Workload string   `json:"workload"`
	Rule     string   `json:"rule"`
	Wanted   string   `json:"wanted"`
	Found    string   `json:"found"`
	Also     []string `json:"also"`
}

// find returns the judgement of the handshake with that reference, nil when no line is
// of it. Lines of other forms are an error: the file is another one then.
func find(audit []byte, reference string) (*verdict, error) {
	n := 0
	for line := range bytes.Lines(audit) {
		if n++; len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var v verdict
		if err := json.Unmarshal(line, &v); err != nil {
			return nil, fmt.Errorf("reading the audit log, line %d: want what keybroker log --json prints", n)
		}
		if v.ID == reference && (v.Event == "attest" || v.Event == "auth") {
			return &v, nil
		}
	}
	return nil, nil
}

// denial is how keybroker words a refusal: a phrase, the rule in brackets, the reference.
const denial = `\[([a-z0-9-]{1,64})\](?:, reference ([A-Za-z0-9_-]{1,128}))?`

// denied takes rule and reference out of a refusal, "" where another relying party
// worded it.
func denied(detail string) (rule, reference string) {
	m := regexp.MustCompile(denial).FindStringSubmatch(detail)
	if m == nil {
		return "", ""
	}
	return m[1], m[2]
}
