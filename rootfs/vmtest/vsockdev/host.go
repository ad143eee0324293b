// SPDX-License-Identifier: Apache-2.0

package vsockdev

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	lineMax          = 32 // bytes of a handshake line; "CONNECT 4294967295\n" has 19
	handshakeTimeout = 5 * time.Second
)

// Dial connects to a port of the guest as a sandbox runtime does: through the hybrid socket at path. A guest that
// does not listen is an error.
func Dial(ctx context.Context, path string, port uint32) (net.Conn, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("dialling port %d of the guest: %w", port, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	line := ""
	if _, err = fmt.Fprintf(c, "CONNECT %d\n", port); err == nil {
		line, err = readLine(c)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil && !strings.HasPrefix(line, "OK ") {
		err = fmt.Errorf("answer %q", line)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("dialling port %d of the guest: %w", port, err)
	}
	return c, nil
}

// readLine reads up to and without a newline, and not a byte more: what follows belongs to the connection.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < lineMax; {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", fmt.Errorf("a line of more than %d bytes", lineMax)
}

func (d *Device) serveHost(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return // closed by Stop
		}
		d.onStop(c.Close)
		d.wg.Go(func() {
			if err := d.fromHost(c); err != nil {
				_ = c.Close() // the host program sees its connection end
			}
		})
	}
}

// fromHost carries a connection that a host program opened.
func (d *Device) fromHost(c *net.UnixConn) error {
	if err := c.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	line, err := readLine(c)
	if err != nil {
		return err
	}
	word, number, _ := strings.Cut(line, " ")
	port, err := strconv.ParseUint(number, 10, 32)
	if err != nil || !strings.EqualFold(word, "connect") {
		return fmt.Errorf("handshake %q", line)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	s, ok := d.request(uint32(port), c)
	if !ok {
		return fmt.Errorf("the guest refuses port %d", port)
	}
	if _, err := fmt.Fprintf(c, "OK %d\n", s.key.host); err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		s.send(opReset, 0, nil)
		d.drop(s)
		return err
	}
	s.run(c)
	return nil
}

// request asks the guest for a connection and waits for its answer.
func (d *Device) request(port uint32, c *net.UnixConn) (*stream, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return nil, false
	}
	d.nextPort++
	s := d.add(streamKey{host: d.nextPort, guest: port}, c)
	s.send(opRequest, 0, nil)
	for !s.open && !s.severed && !s.dead {
		d.cond.Wait()
	}
	return s, s.open && !s.severed && !s.dead
}

// fromGuest carries a connection that the guest opened.
func (d *Device) fromGuest(p packet) {
	nc, err := net.Dial("unix", d.host+"_"+strconv.FormatUint(uint64(p.key.host), 10))
	d.mu.Lock()
	if err != nil || d.stopped {
		d.enqueue(packet{key: p.key, op: opReset})
		d.mu.Unlock()
		if err == nil {
			_ = nc.Close()
		}
		return
	}
	s := d.add(p.key, nc.(*net.UnixConn))
	s.open = true
	s.credit(p)
	s.send(opResponse, 0, nil)
	d.mu.Unlock()
	s.run(nc)
}
