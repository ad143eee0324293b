// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// DefaultAuthRate lets a host restart hundreds of guests at once. At this rate one
	// address cannot fill the session table within a session's life.
	DefaultAuthRate = 150
	// burstSeconds is how much of its rate an address may use at once.
	burstSeconds = 4
	// maxAddresses bounds the table; beyond it, new addresses share one allowance.
	maxAddresses = 16384
	// forgetAfter is long enough for every allowance to be full again.
	forgetAfter = 2 * burstSeconds * time.Second
)

// limiter gives each address an allowance of requests.
type limiter struct {
	rate  rate.Limit
	burst int

	mu       sync.Mutex // guards the rest
	byAddr   map[netip.Prefix]*allowance
	overflow *rate.Limiter
	refused  int // since the last sweep
}

type allowance struct {
	limiter *rate.Limiter
	used    time.Time
}

func newLimiter(perSecond float64) *limiter {
	burst := max(1, int(perSecond*burstSeconds))
	return &limiter{
		rate: rate.Limit(perSecond), burst: burst,
		byAddr: make(map[netip.Prefix]*allowance), overflow: rate.NewLimiter(rate.Limit(perSecond), burst),
	}
}

// allow reports whether r's address has something left, and takes it.
func (l *limiter) allow(r *http.Request, now time.Time) bool {
	key := sourceOf(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.byAddr[key]
	if a == nil && len(l.byAddr) < maxAddresses {
		a = &allowance{limiter: rate.NewLimiter(l.rate, l.burst)}
		l.byAddr[key] = a
	}
	ok := false
	if a != nil {
		a.used = now
		ok = a.limiter.AllowN(now, 1)
	} else {
		ok = l.overflow.AllowN(now, 1)
	}
	if !ok {
		l.refused++
	}
	return ok
}

// sweep forgets idle addresses and returns how many requests were refused since the
// last sweep.
func (l *limiter) sweep(now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, a := range l.byAddr {
		if now.Sub(a.used) > forgetAfter {
			delete(l.byAddr, key)
		}
	}
	n := l.refused
	l.refused = 0
	return n
}

// sourceOf is the address that r came from; an IPv6 site counts as one, because it can
// use every address below its prefix.
func sourceOf(r *http.Request) netip.Prefix { return sourceAddr(r.RemoteAddr) }

// sourceAddr is sourceOf for an address in the text form ADDRESS:PORT.
func sourceAddr(text string) netip.Prefix {
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := ap.Addr().Unmap(), 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.WithZone("").Prefix(bits) // bits fit the family
	return p
}

// remote is the peer's address for the audit log, without the port.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
