// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

// tpmEvent is an event with a SHA-256 digest, or one of SHA-1 alone.
func tpmEvent(index, kind uint32, fill byte, data string) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, index), kind), 1)
	if fill == 0 {
		b = append(le.AppendUint16(b, 0x04), make([]byte, 20)...)
	} else {
		b = append(le.AppendUint16(b, 0x0B), slices.Repeat([]byte{fill}, 32)...)
	}
	return append(le.AppendUint32(b, uint32(len(data))), data...)
}

func TestTPMLogEvents(t *testing.T) {
	log := eventLog(tpmEvent(0, 3, 9, "StartupLocality\x00\x00"), tpmEvent(0, 8, 1, "version"), tpmEvent(4, 4, 2, "other"), tpmEvent(0, 4, 3, ""))
	got, err := evidence.TPMLogEvents(log, 0, crypto.SHA256)
	if err != nil || len(got) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got[0].Type != 8 || string(got[0].Data) != "version" || !bytes.Equal(got[0].Digest, slices.Repeat([]byte{1}, 32)) || got[1].Type != 4 || got[1].Digest[0] != 3 {
		t.Errorf("got %+v", got)
	}
	for name, tt := range map[string]struct {
		log  []byte
		hash crypto.Hash
		want string
	}{
		"nothing":                {nil, crypto.SHA256, "first event"},
		"another bank":           {log, crypto.SHA384, "no SHA-384 digest"},
		"SHA-1":                  {log, crypto.SHA1, "want SHA-256"},
		"a locality":             {eventLog(tpmEvent(0, 3, 9, "StartupLocality\x00\x03")), crypto.SHA256, "locality 03"},
		"a locality of no byte":  {eventLog(tpmEvent(0, 3, 9, "StartupLocality\x00")), crypto.SHA256, "locality"},
		"an event without it":    {eventLog(tpmEvent(0, 8, 0, "")), crypto.SHA256, "event 1: no SHA-256 digest"},
		"an event that is cut":   {log[:len(log)-3], crypto.SHA256, "want 4"},
		"a log of another kind":  {append([]byte(strings.Repeat("\x00", 28)), 0, 0, 0, 0), crypto.SHA256, "type 0x0"},
		"a log larger than that": {make([]byte, evidence.MaxEventLogSize+1), crypto.SHA256, "at most"},
	} {
		if got, err := evidence.TPMLogEvents(tt.log, 0, tt.hash); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v, %v, want %q", name, got, err, tt.want)
		}
	}
}
