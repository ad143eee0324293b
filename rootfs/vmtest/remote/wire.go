// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Port is where a test guest listens, in vsock's port space.
const Port = 1099

// Request asks for one thing: Run or Power.
type Request struct {
	Run     string   `json:",omitempty"` // name of a program in the guest's directory of tests
	Args    []string `json:",omitempty"`
	Seconds int      `json:",omitempty"` // the program is killed after that
	Power   string   `json:",omitempty"` // "off" or "reboot"
}

const (
	kindOutput = 'o' // what the program prints, on either stream
	kindExit   = 'x' // its exit status as text; the last frame
	kindError  = 'e' // why there is no exit status; the last frame

	frameMax = 1 << 20
)

func writeFrame(w io.Writer, kind byte, data []byte) error {
	b := append([]byte{kind}, binary.BigEndian.AppendUint32(nil, uint32(len(data)))...)
	_, err := w.Write(append(b, data...))
	return err
}

func readFrame(r io.Reader) (kind byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > frameMax {
		return 0, nil, fmt.Errorf("frame of %d bytes", size)
	}
	data = make([]byte, size)
	_, err = io.ReadFull(r, data)
	return head[0], data, err
}
