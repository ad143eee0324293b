// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	usual := Options{Journal: true, ReservedPercent: 5, BytesPerInode: 16384, InodeSize: 256, RootMode: 0o755}
	scratch := Options{BytesPerInode: 163840, InodeSize: 128, RootMode: 0o755}
	for _, tt := range []struct {
		text string
		want Options
	}{
		{"", usual},
		{" \t\n", usual},
		{"-E lazy_journal_init", usual},
		{"-E lazy_journal_init=0,lazy_itable_init=0", usual},
		{"-E lazy_journal_init -E lazy_itable_init=0", usual},
		{scratchOptions, scratch},
		{"-I  128\t-i 163840 -m 0   -O ^has_journal -E lazy_journal_init=1", scratch},
	} {
		if got, err := ParseOptions(tt.text); err != nil || got != tt.want {
			t.Errorf("%q: %+v, %v, want %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"another feature", "-O encrypt", `feature "encrypt" of -O`},
		{"features in a list", "-O ^has_journal,^metadata_csum", `feature "^has_journal,^metadata_csum"`},
		{"journal on again", "-O ^has_journal -O has_journal", "-O is given twice"},
		{"tables left unwritten", "-E lazy_itable_init=1", `"lazy_itable_init=1" of -E`},
		{"tables left unwritten by default", "-E lazy_itable_init", `"lazy_itable_init" of -E`},
		{"unknown extended option", "-E lazy_journal_init,discard", `"discard" of -E`},
		{"root owner", "-E root_owner=1:1", `"root_owner=1:1"`},
		{"empty extended option", "-E lazy_journal_init,", `"" of -E`},
		{"extended option twice", "-E lazy_journal_init -E lazy_journal_init=0", "lazy_journal_init of -E is given twice"},
		{"directory to copy from", "-d /etc", `option "-d"`},
		{"offline undo file", "-z /run/x", `option "-z"`},
		{"device", "/dev/vda", `option "/dev/vda"`},
		{"size", "-m 0 8192", `option "8192"`},
		{"joined value", "-m0", `option "-m0"`},
		{"long option", "--help", `option "--help"`},
		{"no value", "-m", "-m has no value"},
		{"negative", "-m -1", `"-1" of -m`},
		{"fraction", "-m 0.5", `"0.5" of -m`},
		{"plus sign", "-m +1", `"+1" of -m`},
		{"leading zero", "-i 0163840", `"0163840" of -i`},
		{"too few", "-i 1024", `"1024" of -i`},
		{"overflow", "-i 18446744073709551616", "of -i"},
		{"inode size", "-I 512", `"512" of -I`},
		{"twice", "-m 0 -m 0", "-m is given twice"},
		{"quotes", `-O "^has_journal"`, "of -O"},
		{"long text", strings.Repeat(" ", maxOptionsText+1), "want at most 1024"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseOptions(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// Whatever is taken can be made.
func FuzzParseOptions(f *testing.F) {
	f.Add(scratchOptions)
	f.Add("-E lazy_journal_init,lazy_itable_init=0 -I 256 -m 50 -i 4096")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseOptions(text)
		if err != nil {
			return
		}
		o.UUID, o.Now = [16]byte{1}, time.Unix(1700000000, 0)
		if err := o.check(MinSize); err != nil {
			t.Fatalf("%q is taken, but: %v", text, err)
		}
		if _, err := newGeometry(MinSize, o); err != nil {
			t.Fatalf("%q is taken, but: %v", text, err)
		}
	})
}
