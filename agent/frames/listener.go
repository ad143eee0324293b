// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"net"
	"sync/atomic"
)

// Listen hands out l's connections under the limits of [Conn], at most limit of them at a time. One too many is
// closed at once: a ttrpc connection stays for long, so waiting for a place may be for ever.
func Listen(l net.Listener, limit int64) net.Listener { return &listener{Listener: l, limit: limit} }

type listener struct {
	net.Listener
	limit int64
	open  atomic.Int64
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.limit {
			return New(c, func() { l.open.Add(-1) }), nil
		}
		l.open.Add(-1)
		_ = c.Close() // the peer sees its connection closed and is told no more
	}
}
