// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// whole lists the stream ids of a peer's bytes that have to be answered, sorted, and those that may be: behind an id
// that was used before, which may be answered by then. all says that every byte belongs to the first.
func whole(b []byte) (ids []uint32, asked map[uint32]bool, all bool) {
	asked, all = map[uint32]bool{}, true
	for len(b) >= 10 {
		size, id := int64(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])
		if b[8] != 1 || id&1 == 0 || int64(len(b)) < 10+size {
			break
		}
		all = all && !asked[id]
		asked[id] = true
		if all {
			ids = append(ids, id)
		}
		b = b[10+size:]
	}
	slices.Sort(ids)
	return ids, asked, all && len(b) == 0
}

// FuzzFrames: whatever a peer sends, every whole request gets one answer as long as nothing else came in between, and
// nothing else does.
func FuzzFrames(f *testing.F) {
	f.Add(echo(1, "a"))
	f.Add(join(echo(1, "a"), request(3, "Refuse", nil), echo(9, "b")))
	f.Add(join(echo(1, "a"), head(0, 1, 3)))
	f.Add(join(echo(1, "a"), echo(2, "a")))
	f.Add(join(echo(5, "a"), echo(3, "a"))[:40])
	f.Add(join(echo(5, "a"), echo(3, "a"), echo(5, "b"), echo(7, "c")))
	f.Add(framedBytes(1, []byte{0xff, 0xff}))
	f.Add(head(messageSizeMax+1, 1, frameRequest))
	f.Add(framedBytes(1, must(proto.Marshal(&ttrpc.Request{Service: "test.Service", Method: "Echo", TimeoutNano: 1}))))
	_, l := start(f, func(c *Config) {
		for _, slow := range []string{"Wait", "Huge", "Long"} {
			delete(c.Methods["test.Service"], slow)
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		want, asked, all := whole(b)
		c := l.dial(t)
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = c.Write(b)
		}()
		var got []uint32
		for len(got) < len(want) {
			r, err := readReply(c)
			if err != nil {
				break // what comes after a bad frame takes what is unanswered with it
			}
			got = append(got, r.id)
		}
		slices.Sort(got)
		if all && !slices.Equal(got, want) {
			t.Errorf("answers to %v, want %v", got, want)
		}
		for _, id := range got {
			if !asked[id] {
				t.Errorf("an answer to %d, which was not asked", id)
			}
		}
		<-sent
		_ = c.Close()
		if _, err := readReply(c); err != io.ErrClosedPipe {
			t.Errorf("a further answer: %v", err)
		}
	})
}
