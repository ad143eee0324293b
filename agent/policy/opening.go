// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
)

const (
	// maxNamed bounds the containers whose names are remembered: a pod has at most 256. maxNamedID bounds their ids in
	// bytes: no longer one names a container.
	maxNamed   = 256
	maxNamedID = 128
	// maxLine bounds a command line in a denial, as its JSON.
	maxLine = 1 << 10
)

// containerName is what Kubernetes allows (RFC 1123 label).
var containerName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// openingText stands before the line that would open a probe or hook.
const openingText = "; for a probe or hook: "

// opening ends the denial of a probe or hook with the line by which the tenant would allow it, made of nothing but
// what the host itself sent: the command line, and the name under which it created the container. The caller has the
// turn.
func (p *Policy) opening(msg proto.Message, err error) error {
	m, ok := msg.(*kata.ExecProcessRequest)
	var d *agent.Denial
	if !ok || !errors.As(err, &d) || d.Reason.Code != "policy-denied" && d.Reason.Code != "policy-silent" {
		return err
	}
	// No pod file asks for a terminal: no policy is written that would allow one.
	if m.GetProcess().GetTerminal() || len(m.GetProcess().GetArgs()) == 0 {
		return err
	}
	argv, failed := json.Marshal(m.GetProcess().GetArgs())
	if failed != nil || len(argv) > maxLine {
		return err
	}
	name := p.names[m.GetContainerId()]
	if name == "" {
		name = "CONTAINER"
	}
	argument := "'" + strings.ReplaceAll(name+"="+string(argv), "'", `'\''`) + "'"
	return reason(d.Reason.Code, d.Reason.Phrase+openingText+"casemate-build agent-policy POD.yaml -o policy.rego --exec "+argument)
}

// learn keeps under which name an allowed request creates a container. A creation that fails is not followed by a
// removal, so that a full list begins anew. The caller has the turn.
func (p *Policy) learn(msg proto.Message) {
	switch m := msg.(type) {
	case *kata.CreateContainerRequest:
		if len(m.GetContainerId()) > maxNamedID {
			return
		}
		for _, key := range []string{"io.kubernetes.cri.container-name", "io.kubernetes.container.name"} {
			if name := m.GetOCI().GetAnnotations()[key]; containerName.MatchString(name) {
				if len(p.names) >= maxNamed {
					clear(p.names)
				}
				p.names[m.GetContainerId()] = name
				return
			}
		}
	case *kata.RemoveContainerRequest:
		delete(p.names, m.GetContainerId())
	}
}
