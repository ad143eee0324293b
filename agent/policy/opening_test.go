// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestNamesOfFailedContainers: a host asks for containers whose creation fails, and never removes what it was told does
// not exist. Their names cost no more than a bound, however long their ids are, and the next container's is known.
func TestNamesOfFailedContainers(t *testing.T) {
	p := load(t, head+"default CreateContainerRequest := true\n")
	allow := func(id, name string) {
		t.Helper()
		err := p.Allow(t.Context(), "CreateContainerRequest", create(id, []string{"a"}, nil, func(m *kata.CreateContainerRequest) {
			m.OCI.Annotations = map[string]string{"io.kubernetes.cri.container-name": name}
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	allow(strings.Repeat("x", 256<<10), "long")
	for i := range maxNamed + 10 {
		allow(fmt.Sprintf("%064d", i), "fails")
	}
	allow(cid, "app")
	size := 0
	for id, name := range p.names {
		size += len(id) + len(name)
	}
	if len(p.names) > maxNamed || size > maxNamed*256 {
		t.Errorf("%d names in %d bytes", len(p.names), size)
	}
	err := p.Allow(t.Context(), "ExecProcessRequest", &kata.ExecProcessRequest{ContainerId: cid, Process: &kata.Process{Args: []string{"probe"}}})
	if err == nil || !strings.HasSuffix(err.Error(), `--exec 'app=["probe"]'`) {
		t.Errorf("the container's name is not known: %v", err)
	}
}
