// SPDX-License-Identifier: Apache-2.0

package api

import (
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// Rejudge judges once more what a guest has sent, with its initdata document, by the registration in in: as a handshake
// would, but without a session, whose nonce nobody can use again, and without a keybroker that lists the document.
func Rejudge(v *verifier.Verifier, in verifier.Input, document []byte) verifier.Verdict {
	refused := func(rule, wanted, found string) verifier.Verdict {
		return verifier.Verdict{Facts: verifier.Facts{TEE: in.TEE}, Findings: []verifier.Finding{*deny(rule, wanted, found)}}
	}
	if document == nil {
		return refused("initdata", "an initdata document", "none")
	}
	d, err := initdata.Parse(document)
	if err != nil {
		return refused("initdata", "an initdata document", err.Error())
	}
	id, debug, err := workloadOf(d.Data[configName])
	if err != nil {
		return refused("workload", `workload = "ID" in `+configName, err.Error())
	}
	if id != in.Registration.ID {
		return refused("workload", in.Registration.ID, id)
	}
	in.InitData, in.Debug = verifier.Digest{Algorithm: d.Algorithm, Sum: d.Digest()}, debug
	return v.Verify(in)
}
