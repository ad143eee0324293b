// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
	"encoding/base64"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate/casemate/verity"
)

func binding() Binding {
	return Binding{
		Pin: verity.Pin{
			Params:   verity.Params{HashType: 1, Algorithm: "sha256", Salt: []byte("salt"), DataBlockSize: 512, HashBlockSize: 4096, DataBlocks: 16, HashOffset: 12288},
			RootHash: bytes.Repeat([]byte{0xab}, 32),
		},
		Implied: []string{".", "usr", "usr/share", "odd\nname"}, Opaque: true,
	}
}

// TestRoundTrip: what is written is read.
func TestRoundTrip(t *testing.T) {
	for _, b := range []Binding{binding(), {Pin: binding().Pin}} {
		got, err := Parse(b.Annotations())
		if err != nil || !reflect.DeepEqual(got, b) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if got := binding().Annotations()[RootHash]; got != strings.Repeat("ab", 32) {
		t.Errorf("root hash annotation: got %s", got)
	}
}

// TestParseRefuses: a layer is bound by a whole pin or not at all.
func TestParseRefuses(t *testing.T) {
	paths := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, tt := range map[string]struct {
		change map[string]string // "-" takes away
		want   string
	}{
		"a root hash alone":         {map[string]string{PinText: "-"}, "bound to no device"},
		"half a pin":                {map[string]string{PinText: "root_hash=" + strings.Repeat("ab", 32)}, "is missing"},
		"two root hashes":           {map[string]string{RootHash: strings.Repeat("cd", 32)}, "and the pin has"},
		"root hash in upper case":   {map[string]string{RootHash: strings.Repeat("AB", 32)}, "and the pin has"},
		"tree in the data":          {map[string]string{PinText: strings.Replace(binding().Pin.Text(), "hash_offset=12288", "hash_offset=4096", 1)}, "lies in its data"},
		"opaque said otherwise":     {map[string]string{Opaque: "false"}, "want true or nothing"},
		"implied is no base64":      {map[string]string{Implied: "!"}, "want base64"},
		"implied is empty":          {map[string]string{Implied: paths("\x00")}, "no path in a layer"},
		"implied has no end":        {map[string]string{Implied: paths("usr")}, "with a NUL behind each"},
		"implied leads up":          {map[string]string{Implied: paths("../etc\x00")}, "no path in a layer"},
		"implied leads up later":    {map[string]string{Implied: paths("a/../../etc\x00")}, "no path in a layer"},
		"implied is absolute":       {map[string]string{Implied: paths("/etc\x00")}, "no path in a layer"},
		"implied with a long name":  {map[string]string{Implied: paths(strings.Repeat("a", maxPath+1) + "\x00")}, "no path in a layer"},
		"implied is the parent":     {map[string]string{Implied: paths("..\x00")}, "no path in a layer"},
		"implied with a double end": {map[string]string{Implied: paths("usr\x00\x00")}, "no path in a layer"},
	} {
		a := maps.Clone(binding().Annotations())
		for key, value := range tt.change {
			if a[key] = value; value == "-" {
				delete(a, key)
			}
		}
		if _, err := Parse(a); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	if _, err := Parse(nil); !errors.Is(err, ErrUnbound) {
		t.Errorf("no annotations: got %v", err)
	}
}

// FuzzParse: whatever is taken can be written again and means the same.
func FuzzParse(f *testing.F) {
	a := binding().Annotations()
	f.Add(a[PinText], a[RootHash], a[Implied], a[Opaque])
	f.Fuzz(func(t *testing.T, pin, root, implied, opaque string) {
		b, err := Parse(map[string]string{PinText: pin, RootHash: root, Implied: implied, Opaque: opaque})
		if err != nil {
			return
		}
		again, err := Parse(b.Annotations())
		if err != nil || !reflect.DeepEqual(b, again) {
			t.Errorf("%+v is read again as %+v, %v", b, again, err)
		}
	})
}
