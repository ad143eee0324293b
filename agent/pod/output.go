// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	outputField = 1 // ReadStreamResponse.data
	// outputHead is what stands before the data of an output: its tag and a length of up to outputMax, behind room for
	// what the server of the API puts before a message.
	outputHead = outputRoom + 1 + 3
	outputRoom = 32
	// outputMax is the data of one output: what the runtimes ask for.
	outputMax = 32 << 10
	// outputSmall is data that needs no buffer of outputMax: most outputs are lines.
	outputSmall = 1 << 10
)

// outputs lends the buffers of large outputs. As garbage they cost more than all the rest of a read.
type outputs struct{ pool sync.Pool }

type outputBuffer [outputHead + outputMax]byte

// output is a kata.ReadStreamResponse, encoded around the data that left the stream.
type output struct {
	mem  []byte
	from int // where the message begins
	lent *outputBuffer
	pool *sync.Pool
}

// room makes place for an output's data.
func (o *outputs) room(n int) *output {
	if n <= outputSmall {
		return &output{mem: make([]byte, outputHead+n)}
	}
	b, ok := o.pool.Get().(*outputBuffer)
	if !ok {
		b = new(outputBuffer)
	}
	return &output{mem: b[:outputHead+n], lent: b, pool: &o.pool}
}

// data is to be filled.
func (o *output) data() []byte { return o.mem[outputHead:] }

// seal writes the encoding before the data. No data is an empty message.
func (o *output) seal() {
	n := uint64(len(o.data()))
	if o.from = outputHead; n > 0 {
		o.from -= 1 + protowire.SizeVarint(n)
		protowire.AppendVarint(protowire.AppendTag(o.mem[o.from:o.from], outputField, protowire.BytesType), n)
	}
}

// Encoded implements frames.Encoded.
func (o *output) Encoded() (b []byte, head int) { return o.mem, o.from }

// Release implements frames.Encoded: the buffer serves others.
func (o *output) Release() {
	if o.lent != nil {
		o.pool.Put(o.lent)
	}
	*o = output{}
}
