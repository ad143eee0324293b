// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestPauseByAnnotationAlone attacks policies that tell the pause container by its annotations: what such a request
// runs is the pause program, or nothing.
func TestPauseByAnnotationAlone(t *testing.T) {
	s := &Service{cfg: Config{Dir: DefaultDir}}
	for _, key := range []string{typeContainerd, typeCRIO} {
		pull := func(source, kind string) func(*kata.CreateContainerRequest) {
			return func(r *kata.CreateContainerRequest) {
				r.OCI.Annotations = map[string]string{key: "sandbox"}
				r.Storages = []*kata.Storage{{Driver: pullDriver, Source: source, DriverOptions: []string{pullOption + `{"metadata":{"` + key + `":"` + kind + `"}}`}}}
			}
		}
		if p, err := s.plan(layered(pull("registry.example/app:1", "container"))); err == nil || !strings.Contains(err.Error(), "blocked by policy: image") {
			t.Errorf("%s: got %+v, %v", key, p, err)
		}
		if p, err := s.plan(layered(pull("pause", "sandbox"))); err != nil || !p.pause {
			t.Errorf("%s: the pause container: got %+v, %v", key, p, err)
		}
	}
}
