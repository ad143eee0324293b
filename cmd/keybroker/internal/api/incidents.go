// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
)

// incidents answers POST /incidents: what an attested guest tells of what was refused or failed in it, for the
// workload's owner. The answer is a ticket, by which it may go on telling when its session is over: what an owner asks
// about happens hours later, and telling of it must not cost a handshake.
func (s *Server) incidents(w http.ResponseWriter, r *http.Request) {
	id, workload, err := s.teller(r)
	if err != nil {
		if !s.overRate(w, r) {
			s.fail(w, fault{http.StatusUnauthorized, variantToken, "no attested session and no ticket of this keybroker"})
		}
		return
	}
	w.Header().Set(correlationHeader, id)
	if !s.telling.allow(id, s.now()) {
		s.fail(w, fault{http.StatusTooManyRequests, variantOverload, "too many messages of this guest"})
		return
	}
	if _, err := s.store.Workload(workload); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			s.fail(w, fault{http.StatusForbidden, variantPolicy, "no longer registered"})
			return
		}
		s.internal(w, "reading a registration", err)
		return
	}
	body, err := readBody(w, r, evidence.MaxIncidentsSize)
	if err != nil {
		s.failBody(w, err, evidence.MaxIncidentsSize)
		return
	}
	told, err := evidence.ParseIncidents(body)
	if err != nil {
		s.fail(w, fault{http.StatusBadRequest, variantRequest, "not a list of incidents"})
		return
	}
	if len(told.List) > 0 {
		err = s.audit.KeepIncidents(workload, id, told)
		if err == nil {
			err = s.audit.Write(audit.Record{Event: audit.Incident, Allowed: true, ID: id, Workload: workload, Note: incidentNote(told), Remote: remote(r)})
		}
	}
	if err != nil {
		s.internal(w, "keeping a guest's incidents", err)
		return
	}
	answer, err := evidence.Ticket{Ticket: s.ticket(id, workload)}.Encode()
	if err != nil {
		s.internal(w, "encoding a ticket", err)
		return
	}
	s.reply(w, http.StatusOK, answer)
}

// incidentNote names the stages and how many of each were told, in the order in which they came.
func incidentNote(told evidence.Incidents) string {
	var stages []string
	count := map[string]int{}
	for _, i := range told.List {
		if count[i.Stage]++; count[i.Stage] == 1 {
			stages = append(stages, i.Stage)
		}
	}
	for n, stage := range stages {
		stages[n] = fmt.Sprintf("%d of %.64s", count[stage], stage)
	}
	return strings.Join(stages, ", ")
}

// teller is the guest of r: by its ticket, else by its attested session or token.
func (s *Server) teller(r *http.Request) (id, workload string, err error) {
	if text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "+ticketPrefix); ok {
		return s.openTicket(text)
	}
	t, err := s.bearer(r)
	return t.ID, t.Workload, err
}

const (
	// ticketPrefix tells tickets from tokens, which begin with a base64url header.
	ticketPrefix = "incidents:"
	// ticketKeyName is where the store has the key of tickets, of ticketKeySize bytes.
	ticketKeyName = "incident tickets"
	ticketKeySize = 32
)

// ticketKey is the same after a restart: guests tell of what happens for as long as they run.
func ticketKey(st *store.Store) ([]byte, error) {
	key, err := st.Key(ticketKeyName, func() ([]byte, error) {
		key := make([]byte, ticketKeySize)
		_, err := rand.Read(key)
		return key, err
	})
	if err == nil && len(key) != ticketKeySize {
		err = fmt.Errorf("key %s is %d bytes, want %d", ticketKeyName, len(key), ticketKeySize)
	}
	return key, err
}

// ticket names the guest of a handshake. It has no end: all that it opens is this guest's own capped list, while its
// workload is registered.
func (s *Server) ticket(id, workload string) string {
	return ticketPrefix + id + ":" + workload + ":" + base64.RawURLEncoding.EncodeToString(s.ticketMAC(id, workload))
}

func (s *Server) ticketMAC(id, workload string) []byte {
	mac := hmac.New(sha256.New, s.ticketKey)
	fmt.Fprintf(mac, "casemate incident ticket v1\x00%s\x00%s", id, workload)
	return mac.Sum(nil)
}

var errTicket = errors.New("not a ticket of this keybroker")

// openTicket reads what follows ticketPrefix.
func (s *Server) openTicket(text string) (id, workload string, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 || owner.CheckID(parts[1]) != nil {
		return "", "", errTicket
	}
	mac, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || !hmac.Equal(mac, s.ticketMAC(parts[0], parts[1])) {
		return "", "", errTicket
	}
	return parts[0], parts[1], nil
}

const (
	// tellRate is how many messages a second one guest may send, tellBurst how many at once: casemate sends 16 at most
	// and then one in half a minute.
	tellRate  = 0.2
	tellBurst = 24
	// tellForget is when its allowance is full again.
	tellForget = tellBurst * 5 * time.Second
	// maxTellers bounds the table; beyond it new guests wait.
	maxTellers = 1 << 16
)

// tellers holds each guest that tells of incidents to a rate. It is safe for concurrent use.
type tellers struct {
	mu   sync.Mutex // guards byID
	byID map[string]*allowance
}

func newTellers() *tellers { return &tellers{byID: map[string]*allowance{}} }

func (t *tellers) allow(id string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.byID[id]
	if a == nil {
		if len(t.byID) >= maxTellers {
			return false
		}
		a = &allowance{limiter: rate.NewLimiter(tellRate, tellBurst)}
		t.byID[id] = a
	}
	a.used = now
	return a.limiter.AllowN(now, 1)
}

// sweep forgets guests that have said nothing for long.
func (t *tellers) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, a := range t.byID {
		if now.Sub(a.used) > tellForget {
			delete(t.byID, id)
		}
	}
}
