// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

// chip is a register of the TEE: processes come and go, it stays.
type chip struct {
	mu    sync.Mutex
	hash  crypto.Hash
	value []byte
	// fault ends the process that extends, before or behind it; 0 is none.
	before, behind bool
}

var errDied = errors.New("the process died")

func newChip() *chip { return &chip{hash: crypto.SHA384, value: make([]byte, 48)} }

func (c *chip) Number() uint32 {
	if c.hash == crypto.SHA256 {
		return 17
	}
	return rtmr3Number
}
func (c *chip) Hash() crypto.Hash { return c.hash }

func (c *chip) Value() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.value), nil
}

func (c *chip) Extend(digest []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.before {
		return errDied
	}
	c.value = sum(c.hash, c.value, digest)
	if c.behind {
		return errDied
	}
	return nil
}

// The vectors of guest-components' description of the format.
func TestDigests(t *testing.T) {
	for _, v := range []struct {
		hash         crypto.Hash
		entry        Entry
		digest, tail string
	}{
		{crypto.SHA256, Entry{"domain", "operation", "content"}, "46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351", "0b00"},
		{crypto.SHA384, Entry{"domain", "operation", "content"}, "dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440fb00f3aa0609db7e49cd8d793f670d02", "0c00"},
		{crypto.SHA384, Entry{"coco.com", "some-operation", "some-content"}, "2330183d89750c6a374ac9827d33a33636e7876733544584c8ccc88df0df87eada37e5d71d0773502234c2b5fbc7448e", "0c00"},
	} {
		text := v.entry.text()
		if got := hex.EncodeToString(digestOf(v.hash, text)); got != v.digest {
			t.Errorf("%s of %q: got %s, want %s", v.hash, text, got, v.digest)
		}
		want := fmt.Sprintf("04000000"+"06000000"+"01000000"+"%s%s"+"%02x000000"+"4c454141"+"%02x000000"+"%x", v.tail, v.digest, len(text)+8, len(text), text)
		if got := hex.EncodeToString(encode(4, v.hash, text, true)); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

// replayed is RTMR3 as a verifier computes it from what evidence carries.
func replayed(t *testing.T, l *Log) []byte {
	t.Helper()
	var out []byte
	err := l.Hold(func(entries []byte) error {
		head := append(make([]byte, 4), 3, 0, 0, 0)
		head = append(append(head, make([]byte, 20)...), 16, 0, 0, 0)
		registers, err := evidence.ReplayEventLog(append(append(head, "Spec ID Event03\x00"...), entries...))
		out = registers[3][:]
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantEntries(t *testing.T, l *Log, want ...string) {
	t.Helper()
	got, err := l.Entries()
	if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the log holds %q, %v, want %q", got, err, want)
	}
}

func TestReplayFindsTheRegister(t *testing.T) {
	c, dir := newChip(), t.TempDir()
	l, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time in another process
		if err := l.Measure(DomainImages, "PullImage", `{"image":"a", "digest":"b"}`); err != nil {
			t.Fatal(err)
		}
		if bound, err := l.MeasureFor("example.com", "op", "x y"); err != nil || !bound {
			t.Fatal(bound, err)
		}
		if l, err = Open(dir, c); err != nil {
			t.Fatal(err)
		}
	}
	// The guest's own entry once, another program's as often as it says so.
	wantEntries(t, l, `github.com/confidential-containers PullImage {"image":"a", "digest":"b"}`, "example.com op x y", "example.com op x y")
	if got := replayed(t, l); !bytes.Equal(got, c.value) {
		t.Errorf("replay gives %x, the register is %x", got, c.value)
	}
}

// An entry is made once however far the process came that began it.
func TestProcessesThatDie(t *testing.T) {
	const first, second = "d op first", "d op second"
	raw := encode(rtmr3Number, crypto.SHA384, second, true)
	type scene struct {
		name           string
		before, behind bool
		written        int // bytes of the entry that reached the log, with the intention still there
	}
	scenes := []scene{{name: "before extending", before: true}, {name: "behind extending", behind: true}}
	for n := 1; n <= len(raw); n += 13 {
		scenes = append(scenes, scene{name: fmt.Sprintf("after %d bytes", n), behind: true, written: n})
	}
	scenes = append(scenes, scene{name: "after the entry", behind: true, written: len(raw)})
	for _, s := range scenes {
		c, dir := newChip(), t.TempDir()
		l, err := Open(dir, c)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Measure("d", "op", "first"); err != nil {
			t.Fatal(err)
		}
		c.before, c.behind = s.before, s.behind
		if err := l.Measure("d", "op", "second"); !errors.Is(err, errDied) {
			t.Fatalf("%s: %v", s.name, err)
		}
		c.before, c.behind = false, false
		if s.written > 0 {
			path := filepath.Join(dir, logName)
			have, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(have, raw[:s.written]...), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if l, err = Open(dir, c); err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		if err := l.Measure("d", "op", "second"); err != nil { // the restarted process does its work again
			t.Errorf("%s: %v", s.name, err)
		}
		wantEntries(t, l, first, second)
		if got := replayed(t, l); !bytes.Equal(got, c.value) {
			t.Errorf("%s: replay gives %x, the register is %x", s.name, got, c.value)
		}
		if there, err := exists(filepath.Join(dir, walName)); there || err != nil {
			t.Errorf("%s: the intention is still there: %v", s.name, err)
		}
	}
}

// A register that something else extends has no true log: nothing is added to it.
func TestRegisterExtendedBySomethingElse(t *testing.T) {
	c, dir := newChip(), t.TempDir()
	l, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	c.behind = true
	if err := l.Measure("d", "op", "x"); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	c.behind = false
	if err := c.Extend(make([]byte, 48)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, c); err == nil || !strings.Contains(err.Error(), "something else extends it") {
		t.Errorf("got %v", err)
	}
}

func TestWithoutRegister(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Measure(DomainImages, "PullImage", "{}"); err != nil {
		t.Fatal(err)
	}
	if bound, err := l.MeasureFor("example.com", "op", "x"); bound || err != nil {
		t.Errorf("bound %v, %v", bound, err)
	}
	if got := replayed(t, l); !bytes.Equal(got, make([]byte, 48)) {
		t.Errorf("unbound entries measure %x", got)
	}
	raw, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	all, err := decodeAll(raw, rtmr3Number, crypto.SHA384)
	if err != nil || len(all) != 2 || all[0].bound || all[1].bound {
		t.Errorf("got %+v, %v", all, err)
	}
	// A process that died while it wrote leaves a piece, which goes.
	if err := os.WriteFile(filepath.Join(dir, logName), raw[:len(raw)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(dir, nil); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, l, "github.com/confidential-containers PullImage {}")
}

func TestEntriesThatAreRefused(t *testing.T) {
	l, err := Open(t.TempDir(), newChip())
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]Entry{
		"no domain":              {"", "op", "x"},
		"no operation":           {"d", "", "x"},
		"domain of two words":    {"d e", "op", "x"},
		"operation of two words": {"d", "o p", "x"},
		"domain in other script": {"github.com/confidentiаl-containers", "PullImage", "{}"}, // a Cyrillic letter
		"no-break space":         {"d\u00a0e", "op", "x"},
		"two lines":              {"d", "op", "x\ngithub.com/confidential-containers PullImage {}"},
		"zero byte":              {"d", "op", "x\x00"},
		"too long":               {"d", "op", strings.Repeat("x", MaxText)},
	} {
		if err := l.Measure(e.Domain, e.Operation, e.Content); err == nil {
			t.Errorf("%s: recorded", name)
		}
	}
	wantEntries(t, l)
}

// A program that writes without end must leave room for the guest's own entries.
func TestOthersCannotFillTheLog(t *testing.T) {
	c := newChip()
	l, err := Open(t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; err == nil; n++ {
		if n > maxLog {
			t.Fatal("no end")
		}
		_, err = l.MeasureFor("example.com", "op", fmt.Sprint(n, strings.Repeat("x", MaxText/2)))
	}
	if !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if err := l.Measure(DomainImages, "PullImage", "{}"); err != nil {
		t.Error(err)
	}
	for n := 0; err == nil || n == 0; n++ {
		err = l.Measure(DomainGuest, "op", fmt.Sprint(n, strings.Repeat("x", MaxText-64)))
	}
	if !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if got := replayed(t, l); !bytes.Equal(got, c.value) {
		t.Errorf("replay gives %x, the register is %x", got, c.value)
	}
}

func TestManyWriters(t *testing.T) {
	c, dir := newChip(), t.TempDir()
	var wg sync.WaitGroup
	for n := range 8 {
		l, err := Open(dir, c)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for i := range 4 {
				if _, err := l.MeasureFor("d", "op", fmt.Sprint(n, i)); err != nil {
					t.Error(err)
				}
				if err := l.Measure("d", "op", "once"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Entries()
	if err != nil || len(got) != 33 {
		t.Errorf("%d entries, %v, want 33", len(got), err)
	}
	if got := replayed(t, l); !bytes.Equal(got, c.value) {
		t.Errorf("replay gives %x, the register is %x", got, c.value)
	}
}

func TestLogsThatAreRefused(t *testing.T) {
	good := encode(rtmr3Number, crypto.SHA384, "d op x", true)
	edit := func(at int) []byte {
		out := bytes.Clone(good)
		out[at] ^= 1
		return out
	}
	for name, raw := range map[string][]byte{
		"another register": edit(0), "another type": edit(4), "two digests": edit(8), "another hash": edit(12),
		"digest edited": edit(20), "text edited": edit(len(good) - 1), "cut": good[:len(good)-1], "over the cap": make([]byte, maxLog+1),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, logName), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, newChip()); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	for name, wal := range map[string][]byte{
		"short": make([]byte, 55), "beyond the log": append([]byte{0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 60)...),
		"huge offset": append(bytes.Repeat([]byte{0xff}, 8), make([]byte, 60)...), "over the cap": make([]byte, 57+MaxText),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, walName), wal, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, newChip()); err == nil {
			t.Errorf("intention %s: opened", name)
		}
		if _, err := Open(dir, nil); err == nil {
			t.Errorf("intention %s, no register: opened", name)
		}
	}
}

func TestPCRForm(t *testing.T) {
	c := &chip{hash: crypto.SHA256, value: make([]byte, 32)}
	dir := t.TempDir()
	l, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Measure("domain", "operation", "content"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil || !bytes.Equal(raw, encode(17, crypto.SHA256, "domain operation content", true)) {
		t.Errorf("got %x, %v", raw, err)
	}
}

// The file stands in for the kernel's: it takes the same bytes and gives back what was
// written, which is not an extension, and must be noticed.
func TestRTMR3File(t *testing.T) {
	dir := t.TempDir()
	if r, err := OpenRTMR3(dir); r != nil || err != nil {
		t.Errorf("a kernel without registers: %v, %v", r, err)
	}
	path := filepath.Join(dir, "rtmr3:sha384")
	if err := os.WriteFile(path, make([]byte, 47), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRTMR3(dir); err == nil {
		t.Error("a register of 47 bytes")
	}
	if err := os.WriteFile(path, make([]byte, 48), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRTMR3(dir)
	if err != nil {
		t.Fatal(err)
	}
	digest := digestOf(crypto.SHA384, "d op x")
	if err := r.Extend(digest); err != nil {
		t.Fatal(err)
	}
	if value, err := r.Value(); err != nil || !bytes.Equal(value, digest) {
		t.Errorf("wrote %x, %v", value, err)
	}
	if err := r.Extend(digest[:32]); err == nil {
		t.Error("extended by 32 bytes")
	}
	l, err := Open(t.TempDir(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Measure("d", "op", "x"); err == nil || !strings.Contains(err.Error(), "something else extends it") {
		t.Errorf("a register that does not extend: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(rtmr3Number, crypto.SHA384, "d op x", true))
	f.Add(encode(rtmr3Number, crypto.SHA384, "d op x", false))
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := decodeAll(raw, rtmr3Number, crypto.SHA384)
		var again []byte
		for _, r := range all {
			again = append(again, encode(rtmr3Number, crypto.SHA384, r.text, r.bound)...)
		}
		if !bytes.HasPrefix(raw, again) || err == nil && len(again) != len(raw) {
			t.Fatalf("%x reads as %x, %v", raw, again, err)
		}
	})
}
