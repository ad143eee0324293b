// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/hex"
	"fmt"
)

// MaxCounterSize caps both messages about a volume's counter, in bytes of JSON.
const MaxCounterSize = 512

// GenerationIDSize is the length of a generation's id, in bytes.
const GenerationIDSize = 16

// Generation is one state of a volume. Numbers grow; the random id tells two guests apart that reached the same number
// on two copies of one disk. The zero value is that of a volume which nobody has counted.
type Generation struct {
	Number uint64
	ID     [GenerationIDSize]byte
}

// Counter is what keybroker keeps of a volume.
type Counter struct {
	Generation
	// Reset says that the owner has left to the next guest which generation its disk has.
	Reset bool
}

// CounterChange asks that the counter be To, provided that it is From.
type CounterChange struct{ From, To Generation }

func (g Generation) encode() []byte {
	return fmt.Appendf(nil, `{"id":"%x","number":%d}`, g.ID, g.Number)
}

// Encode returns the wire form.
func (c Counter) Encode() []byte {
	return fmt.Appendf(nil, `{"generation":%s,"reset":%t}`, c.Generation.encode(), c.Reset)
}

// Encode returns the wire form.
func (c CounterChange) Encode() []byte {
	return fmt.Appendf(nil, `{"from":%s,"to":%s}`, c.From.encode(), c.To.encode())
}

// ParseCounter reads what Counter.Encode wrote. Every member is required.
func ParseCounter(raw []byte) (Counter, error) {
	r := readObject("counter", raw, MaxCounterSize)
	c := Counter{Generation: r.generation("generation")}
	v := r.take("reset")
	if c.Reset = string(v) == "true"; r.err == nil && !c.Reset && string(v) != "false" {
		r.fail("reset", "not true or false")
	}
	if err := r.done(); err != nil {
		return Counter{}, err
	}
	return c, nil
}

// ParseCounterChange reads what CounterChange.Encode wrote. A change that does not raise the number is refused.
func ParseCounterChange(raw []byte) (CounterChange, error) {
	r := readObject("counter change", raw, MaxCounterSize)
	c := CounterChange{From: r.generation("from"), To: r.generation("to")}
	if r.err == nil && c.To.Number <= c.From.Number {
		r.fail("to", "number %d, want more than %d", c.To.Number, c.From.Number)
	}
	if err := r.done(); err != nil {
		return CounterChange{}, err
	}
	return c, nil
}

func (r *reader) generation(member string) Generation {
	o := r.object(member)
	g := Generation{Number: o.uint("number", 64)}
	id, err := hex.DecodeString(o.text("id"))
	if o.err == nil && (err != nil || len(id) != GenerationIDSize) {
		o.fail("id", "want %d hex digits", 2*GenerationIDSize)
	}
	copy(g.ID[:], id)
	r.wrap(member, o.done())
	return g
}
