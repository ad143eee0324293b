// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
)

// An output is on the wire what the generated type would be.
func TestOutputIsAResponse(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 1 << 14, 1<<14 - 1, outputMax, streamBuffer} {
		data := bytes.Repeat([]byte{0xa5}, n)
		want, err := proto.Marshal(&kata.ReadStreamResponse{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		s := newStream()
		go func() { _, _ = s.Write(data); _ = s.Close() }()
		var headed []byte
		for n > 0 && len(headed) < outputHead+n { // the writer may have come only so far
			b, err := s.read(t.Context(), outputHead, n)
			if err != nil {
				t.Fatal(err)
			}
			headed = append(append(make([]byte, outputHead), headed[min(outputHead, len(headed)):]...), b[outputHead:]...)
		}
		o := newOutput(headed)
		for _, options := range []proto.MarshalOptions{{}, {Deterministic: true}} {
			got, err := options.Marshal(o)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: got %d on the wire, want %d: %v", n, len(got), len(want), err)
			}
			if got, err = options.MarshalAppend([]byte("before"), o); err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Errorf("%d bytes behind others: %v", n, err)
			}
		}
	}
}
