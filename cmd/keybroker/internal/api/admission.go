// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// Where an initdata document says which registration it is for.
const (
	configName  = "casemate.toml"
	workloadKey = "workload"
	// debugKey is true for debug guests: their agent takes no other document, and no other
	// agent takes theirs.
	debugKey = "debug"
)

// admitted is what a listed initdata document says.
type admitted struct {
	digest       verifier.Digest
	registration owner.Registration
	debug        bool
}

// admission finds the registration that a guest is judged by. The document's id only
// selects it: whether the digest is one of that registration's is a rule of the
// verifier.
type admission struct {
	loading sync.Mutex // held while the store is read, so that the newest reading stays

	mu sync.RWMutex // guards listed
	// listed are the initdata digests of all registrations. Only a document whose bytes
	// hash to one of them is parsed: a document of evidence.MaxInitDataSize can take the
	// TOML reader seconds and hundreds of MiB.
	listed map[string]bool
}

func newAdmission() *admission { return &admission{} }

// load reads what the store has registered, after every change of it.
func (a *admission) load(st *store.Store) error {
	a.loading.Lock()
	defer a.loading.Unlock()
	list, err := st.Workloads()
	if err != nil {
		return err
	}
	listed := make(map[string]bool)
	for _, w := range list {
		r, err := st.Workload(w.ID)
		if errors.Is(err, store.ErrNotFound) {
			continue // removed since; who removed it loads after us
		}
		if err != nil {
			return err
		}
		for _, digest := range r.InitData {
			listed[digest] = true
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listed = listed
	return nil
}

// digestsOf returns the digests by which an owner may have listed a document. Which one
// the document itself asks for is not known before it is parsed.
func digestsOf(document []byte) ([]verifier.Digest, error) {
	var digests []verifier.Digest
	for _, algorithm := range evidence.SupportedHashes() {
		sum, err := algorithm.Sum(document)
		if err != nil {
			return nil, err
		}
		digests = append(digests, verifier.Digest{Algorithm: algorithm, Sum: sum})
	}
	return digests, nil
}

// screen returns the finding that denies a document that no registration lists, nil for
// one that some registration does. It only hashes: what a host made up is never parsed.
func (a *admission) screen(document []byte) (*verifier.Finding, error) {
	if document == nil {
		return deny("initdata", "an initdata document", "none"), nil
	}
	digests, err := digestsOf(document)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, digest := range digests {
		if a.lists(digest) {
			return nil, nil
		}
		found = append(found, digest.String())
	}
	return deny("initdata-listed", "a digest that a registration lists", strings.Join(found, " or ")), nil
}

func (a *admission) lists(digest verifier.Digest) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.listed[digest.String()]
}

// admit parses a document that passed screen and returns what it says, with the
// registration that it selects, or the finding that denies. err says that the store failed. The
// caller holds a slot of verifying: a listed document may still be large.
func (a *admission) admit(st *store.Store, document []byte) (admitted, *verifier.Finding, error) {
	d, err := initdata.Parse(document)
	if err != nil {
		return admitted{}, deny("initdata", "an initdata document", err.Error()), nil
	}
	// What was listed may be the digest by another algorithm than the document's own.
	found := admitted{digest: verifier.Digest{Algorithm: d.Algorithm, Sum: d.Digest()}}
	if !a.lists(found.digest) {
		return found, deny("initdata-listed", "a digest that a registration lists", found.digest.String()), nil
	}
	id, debug, err := workloadOf(d.Data[configName])
	if err != nil {
		return found, deny("workload", `workload = "ID" in `+configName, err.Error()), nil
	}
	found.debug = debug
	found.registration, err = st.Workload(id)
	if errors.Is(err, store.ErrNotFound) {
		return found, deny("workload", "a registered workload", id), nil
	}
	return found, nil, err
}

func deny(rule, wanted, found string) *verifier.Finding {
	return &verifier.Finding{Rule: rule, Wanted: wanted, Found: found}
}

// workloadOf reads the id, and whether the guest is one for debugging. The rest of the file
// is for the guest.
func workloadOf(config string) (id string, debug bool, err error) {
	// A map, because the decoder matches struct fields without regard to case.
	var doc map[string]any
	if _, err := toml.Decode(config, &doc); err != nil {
		return "", false, fmt.Errorf("parsing %s: %w", configName, err)
	}
	id, ok := doc[workloadKey].(string)
	if !ok {
		return "", false, fmt.Errorf("no string %q", workloadKey)
	}
	if value, ok := doc[debugKey]; ok {
		if debug, ok = value.(bool); !ok {
			return "", false, fmt.Errorf("%q is neither true nor false", debugKey)
		}
	}
	return id, debug, owner.CheckID(id)
}
