// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	cookieName = "kbs-session-id"

	// sessionLife counts from auth and is not extended by attest, as in Trustee.
	sessionLife = 5 * time.Minute

	// maxSessions is above what one address can open in a session's life at
	// DefaultAuthRate. A session without a token takes about 500 bytes.
	maxSessions = 1 << 16

	nonceSize       = 32
	sessionIDSize   = 16
	correlationSize = 8
)

// session is one handshake and what it led to.
type session struct {
	id string // the cookie: 32 hex digits
	// correlation ties log lines together; unlike id it opens nothing.
	correlation string
	tee         evidence.TEE
	nonce       string
	hash        evidence.HashAlgorithm
	expires     time.Time

	spent    bool   // the nonce was used
	replayed bool   // and a second use was seen
	reported bool   // the guest has said of itself what it wanted to
	token    string // compact JWT, "" until the attestation was accepted
}

var (
	errSessionUnknown = errors.New("no such session, or it has expired")
	errSessionSpent   = errors.New("the nonce of this session was used before")
	errSessionsFull   = errors.New("too many sessions")
)

// sessions is the table of live sessions. It hands out copies. It is safe for
// concurrent use.
type sessions struct {
	mu    sync.Mutex // guards byID and order
	byID  map[string]*session
	order []*session // as they were opened; those that have gone meanwhile too
	max   int
}

func newSessions() *sessions {
	return &sessions{byID: make(map[string]*session), max: maxSessions}
}

// open makes a session, in a full table in the place of the oldest that led to nothing yet. The error is
// errSessionsFull.
func (t *sessions) open(tee evidence.TEE, hash evidence.HashAlgorithm, now time.Time) (session, error) {
	var random [sessionIDSize + correlationSize + nonceSize]byte
	rand.Read(random[:])
	s := session{
		id:          hex.EncodeToString(random[:sessionIDSize]),
		correlation: hex.EncodeToString(random[sessionIDSize : sessionIDSize+correlationSize]),
		nonce:       base64.StdEncoding.EncodeToString(random[sessionIDSize+correlationSize:]),
		tee:         tee,
		hash:        hash,
		expires:     now.Add(sessionLife),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byID) >= t.max && !t.giveWay() {
		t.dropExpired(now)
	}
	if len(t.byID) >= t.max {
		return session{}, errSessionsFull
	}
	t.byID[s.id] = &s
	t.order = append(t.order, &s)
	return s, nil
}

// giveWay drops the oldest session without a token. Anybody can open sessions, from a few addresses enough to fill the
// table: were they kept, no guest could attest until they are over. A handshake takes a moment.
func (t *sessions) giveWay() bool {
	for len(t.order) > 0 {
		s := t.order[0]
		t.order = t.order[1:]
		if t.byID[s.id] == s && s.token == "" {
			delete(t.byID, s.id)
			return true
		}
	}
	return false
}

// find returns the live session with that id.
func (t *sessions) find(id string, now time.Time) (session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byID[id]
	if s == nil || !now.Before(s.expires) {
		return session{}, errSessionUnknown
	}
	return *s, nil
}

// spend returns the live session with that id and uses up its nonce. Of any number of
// calls with one id, one succeeds; the others get errSessionSpent with the session.
func (t *sessions) spend(id string, now time.Time) (session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byID[id]
	if s == nil || !now.Before(s.expires) {
		return session{}, errSessionUnknown
	}
	if s.spent {
		return *s, errSessionSpent
	}
	s.spent = true
	return *s, nil
}

// replayed reports whether a second use of the session's nonce was seen before, and
// remembers this one.
func (t *sessions) replayed(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byID[id]
	if s == nil {
		return true // it expired meanwhile
	}
	before := s.replayed
	s.replayed = true
	return before
}

// attest gives a spent session its token. A session that expired meanwhile stays gone.
func (t *sessions) attest(id, token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byID[id]; s != nil {
		s.token = token
	}
}

// sweep drops expired sessions.
func (t *sessions) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropExpired(now)
}

func (t *sessions) dropExpired(now time.Time) {
	for id, s := range t.byID {
		if !now.Before(s.expires) {
			delete(t.byID, id)
		}
	}
	for len(t.order) > 0 && !now.Before(t.order[0].expires) {
		t.order = t.order[1:]
	}
}
