// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/frames"
)

var _ frames.Encoded = (*output)(nil)

// An output is on the wire what the generated type would be, behind the room that the server wants.
func TestOutputIsAResponse(t *testing.T) {
	var lender outputs
	for _, n := range []int{0, 1, 127, 128, outputSmall, outputSmall + 1, 1<<14 - 1, 1 << 14, outputMax} {
		data := bytes.Repeat([]byte{0xa5}, n)
		want, err := proto.Marshal(&kata.ReadStreamResponse{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		o := lender.room(n)
		copy(o.data(), data)
		o.seal()
		b, head := o.Encoded()
		if head < frames.Room || !bytes.Equal(b[head:], want) {
			t.Errorf("%d bytes: got %d on the wire behind %d, want %d", n, len(b)-head, head, len(want))
		}
		o.Release()
	}
}

// A buffer that was given back is nobody's: who gave it has it no more, and gives it once.
func TestOutputIsReleasedOnce(t *testing.T) {
	var lender outputs
	o := lender.room(outputMax)
	o.seal()
	o.Release()
	o.Release()
	if b, _ := o.Encoded(); b != nil {
		t.Error("a released output has its buffer still")
	}
	if a, b := lender.room(outputMax), lender.room(outputMax); a.lent == b.lent {
		t.Error("two outputs have one buffer")
	}
}
