// SPDX-License-Identifier: Apache-2.0

package vsockdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Requests of the vhost-user protocol that this device answers or obeys.
const (
	reqGetFeatures         = 1
	reqSetMemTable         = 5
	reqSetVringNum         = 8
	reqSetVringAddr        = 9
	reqSetVringBase        = 10
	reqGetVringBase        = 11
	reqSetVringKick        = 12
	reqSetVringCall        = 13
	reqGetProtocolFeatures = 15
	reqGetQueueNum         = 17
	reqSetVringEnable      = 18
	reqGetConfig           = 24
)

const (
	messageHeaderSize = 12
	messageSizeMax    = 4096
	messageFDsMax     = 8

	flagVersion   = 1
	flagReply     = 1 << 2
	flagNeedReply = 1 << 3

	featureVersion1         = 1 << 32
	featureProtocolFeatures = 1 << 30
	protocolReplyAck        = 1 << 3
	protocolConfig          = 1 << 9

	regionSize   = 32      // bytes of one entry of the memory table
	noDescriptor = 1 << 8  // in the number of a vring: no descriptor comes with the message
	ringAlign    = 4       // what the atomic accesses of queue.go need; the specification asks for as much
	regionMax    = 1 << 40 // bytes; keeps the sums below from wrapping
)

// message is one control message.
type message struct {
	request, flags uint32
	body           []byte
	fds            []int
}

// serveControl speaks with QEMU until it goes away.
func (d *Device) serveControl(l *net.UnixListener) {
	c, err := l.AcceptUnix()
	if err != nil {
		return // closed by Stop
	}
	d.onStop(c.Close)
	for {
		m, err := readMessage(c)
		if err == nil {
			err = d.control(c, m)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
				d.mu.Lock()
				d.fail(fmt.Errorf("vhost-user: %w", err))
				d.mu.Unlock()
			}
			return
		}
	}
}

func readMessage(c *net.UnixConn) (message, error) {
	head, oob := make([]byte, messageHeaderSize), make([]byte, unix.CmsgSpace(4*messageFDsMax))
	n, oobn, _, _, err := c.ReadMsgUnix(head, oob)
	if err != nil {
		return message{}, err
	}
	if n == 0 {
		return message{}, io.EOF
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return message{}, err
	}
	m := message{request: binary.LittleEndian.Uint32(head), flags: binary.LittleEndian.Uint32(head[4:])}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return message{}, err
	}
	for i := range cmsgs {
		fds, err := unix.ParseUnixRights(&cmsgs[i])
		if err != nil {
			return message{}, err
		}
		m.fds = append(m.fds, fds...)
	}
	size := binary.LittleEndian.Uint32(head[8:])
	if size > messageSizeMax {
		return message{}, fmt.Errorf("request %d has %d bytes", m.request, size)
	}
	m.body = make([]byte, size)
	_, err = io.ReadFull(c, m.body)
	return m, err
}

// control obeys a message and answers it if it wants an answer. Descriptors that nobody took are closed.
func (d *Device) control(c *net.UnixConn, m message) error {
	reply, err := d.handle(&m)
	for _, fd := range m.fds {
		err = errors.Join(err, unix.Close(fd))
	}
	if err != nil {
		return fmt.Errorf("request %d: %w", m.request, err)
	}
	if reply == nil {
		if m.flags&flagNeedReply == 0 {
			return nil
		}
		reply = make([]byte, 8) // zero: done
	}
	b := binary.LittleEndian.AppendUint32(nil, m.request)
	b = binary.LittleEndian.AppendUint32(b, flagVersion|flagReply)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(reply)))
	_, err = c.Write(append(b, reply...))
	return err
}

// handle returns the reply of requests that have one. It takes descriptors out of m.
func (d *Device) handle(m *message) ([]byte, error) {
	e := binary.LittleEndian
	word := func(v uint64) []byte { return e.AppendUint64(nil, v) }
	switch m.request {
	case reqGetFeatures:
		return word(featureVersion1 | featureProtocolFeatures), nil
	case reqGetProtocolFeatures:
		return word(protocolReplyAck | protocolConfig), nil
	case reqGetQueueNum:
		return word(queueCount), nil
	case reqGetConfig:
		return d.config(m.body)
	case reqSetMemTable:
		return nil, d.setMemory(m)
	case reqSetVringNum, reqSetVringAddr, reqSetVringBase, reqGetVringBase, reqSetVringKick, reqSetVringCall, reqSetVringEnable:
		return d.setQueue(m)
	}
	return nil, nil
}

// config answers a read of the device's configuration space: the guest's context id, 8 bytes.
func (d *Device) config(body []byte) ([]byte, error) {
	const header = 12 // offset, size, flags
	if len(body) < header {
		return nil, errors.New("short message")
	}
	offset := binary.LittleEndian.Uint32(body)
	if offset > 8 {
		return nil, fmt.Errorf("offset %d", offset)
	}
	copy(body[header:], binary.LittleEndian.AppendUint64(nil, d.cid)[offset:])
	return body, nil
}

func (d *Device) setMemory(m *message) error {
	e := binary.LittleEndian
	if len(m.body) < 8 {
		return errors.New("short message")
	}
	count := int(e.Uint32(m.body))
	if count > messageFDsMax || len(m.body) < 8+regionSize*count || len(m.fds) < count {
		return fmt.Errorf("%d regions in %d bytes with %d descriptors", count, len(m.body), len(m.fds))
	}
	var table memory
	for i := range count {
		b := m.body[8+regionSize*i:]
		r := region{guest: e.Uint64(b), user: e.Uint64(b[16:]), offset: e.Uint64(b[24:])}
		size := e.Uint64(b[8:])
		if size > regionMax || r.offset > regionMax {
			return errors.Join(fmt.Errorf("region of %d bytes at %d", size, r.offset), table.unmap())
		}
		mem, err := unix.Mmap(m.fds[i], 0, int(size+r.offset), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return errors.Join(fmt.Errorf("mapping guest memory: %w", err), table.unmap())
		}
		r.mem = mem
		table = append(table, r)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// The rings lie in the old mapping; QEMU sets their addresses again.
	for i := range d.queues {
		q := &d.queues[i]
		q.desc, q.avail, q.used = nil, nil, nil
	}
	err := d.mem.unmap()
	d.mem = table
	return err
}

func (d *Device) setQueue(m *message) ([]byte, error) {
	e := binary.LittleEndian
	if len(m.body) < 8 {
		return nil, errors.New("short message")
	}
	number, value := e.Uint32(m.body), e.Uint32(m.body[4:])
	index := int(number & 0xff)
	if index >= queueCount {
		return nil, fmt.Errorf("queue %d", index)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	q := &d.queues[index]
	switch m.request {
	case reqSetVringNum:
		if value == 0 || value > queueSizeMax || value&(value-1) != 0 {
			return nil, fmt.Errorf("queue size %d", value)
		}
		q.size = value
	case reqSetVringAddr:
		return nil, q.setRings(d.mem, m.body)
	case reqSetVringBase:
		q.next = uint16(value)
	case reqGetVringBase: // it also stops the queue
		q.enabled = false
		q.close()
		return e.AppendUint32(e.AppendUint32(nil, number), uint32(q.next)), nil
	case reqSetVringKick:
		return nil, d.setKick(index, m)
	case reqSetVringCall:
		f, err := takeEvent(m)
		if err == nil && q.call != nil {
			err = q.call.Close()
		}
		q.call = f
		return nil, err
	case reqSetVringEnable:
		q.enabled = value == 1
	}
	d.serve(index) // whatever waited for this message
	return nil, nil
}

func (q *queue) setRings(mem memory, body []byte) (err error) {
	e := binary.LittleEndian
	if len(body) < 32 {
		return errors.New("short message")
	}
	size := uint64(q.size)
	if q.desc, err = mem.userAt(e.Uint64(body[8:]), descSize*size); err != nil {
		return err
	}
	if q.used, err = mem.userAt(e.Uint64(body[16:]), 6+8*size); err != nil {
		return err
	}
	if q.avail, err = mem.userAt(e.Uint64(body[24:]), 6+2*size); err != nil {
		return err
	}
	if e.Uint64(body[16:])%ringAlign != 0 || e.Uint64(body[24:])%ringAlign != 0 {
		return errors.New("rings out of alignment")
	}
	return nil
}

func (d *Device) setKick(index int, m *message) error {
	f, err := takeEvent(m)
	if err != nil || f == nil {
		return err
	}
	q := &d.queues[index]
	if q.kick != nil {
		err = q.kick.Close()
	}
	q.kick = f
	d.wg.Go(func() { d.kicked(index, f) })
	return err
}

// takeEvent takes the event counter that came with a message, nil if none did. Non-blocking, so that closing it
// ends a read.
func takeEvent(m *message) (*os.File, error) {
	if binary.LittleEndian.Uint32(m.body)&noDescriptor != 0 || len(m.fds) == 0 {
		return nil, nil
	}
	fd := m.fds[0]
	m.fds = m.fds[1:]
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "eventfd"), nil
}
