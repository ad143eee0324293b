// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/storage/luks"
)

// party is a relying party's counter. An error of before comes instead of a change, one of after behind it.
type party struct {
	mu            sync.Mutex // guards the fields below
	last          Generation
	reset         bool
	before, after error
	calls         int
}

func (p *party) Last(context.Context, string) (Generation, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.reset, nil
}

func (p *party) Raise(_ context.Context, volume string, from, to Generation) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	switch {
	case volume != "vol":
		return fmt.Errorf("another volume: %s", volume)
	case p.before != nil:
		return p.before
	case p.last != from || to.Number <= from.Number:
		return ErrNotLast
	}
	p.last, p.reset = to, false
	return p.after
}

// cutDisk is the records' room of a disk in memory. It dies in the n-th write, of which half gets through.
type cutDisk struct {
	b      []byte
	writes int // that succeed; negative: all
}

var errCut = errors.New("power cut")

func (d *cutDisk) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(d.b).ReadAt(p, at) }
func (d *cutDisk) Sync() error                            { return nil }

func (d *cutDisk) WriteAt(p []byte, at int64) (int, error) {
	if d.writes == 0 {
		copy(d.b[at:], p[:recordSize/2])
		return 0, errCut
	}
	d.writes--
	return copy(d.b[at:], p), nil
}

func (d *cutDisk) image() *cutDisk { return &cutDisk{bytes.Clone(d.b), -1} }

func newReplay(t *testing.T, p *party) *replay {
	t.Helper()
	r, err := newRecords(&luks.Volume{UUID: "u", Key: bytes.Repeat([]byte{7}, 64), Layout: luks.Layout{Offset: luks.RecordsSize}})
	if err != nil {
		t.Fatal(err)
	}
	return &replay{records: r, counter: p, volume: "vol"}
}

// counted is a new volume's room, counted once.
func counted(t *testing.T) (*party, *cutDisk) {
	t.Helper()
	p, d := &party{}, &cutDisk{make([]byte, luks.RecordsSize), -1}
	if err := newReplay(t, p).begin(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if p.last.Number != 1 || p.last.ID == [16]byte{} {
		t.Fatalf("counted as %+v", p.last)
	}
	return p, d
}

// TestReplayRefused: an older whole image is refused, with both numbers, and changes nothing on either side; the newest
// one opens on.
func TestReplayRefused(t *testing.T) {
	p, d := counted(t)
	var images []*cutDisk
	for range 5 {
		images = append(images, d.image())
		if err := newReplay(t, p).raise(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	for i, old := range images {
		before, calls := old.image(), p.calls
		err := newReplay(t, p).raise(t.Context(), old)
		e, ok := errors.AsType[*ErrOldImage](err)
		if !ok || *e != (ErrOldImage{Disk: uint64(i) + 1, Last: 6}) || !strings.Contains(err.Error(), fmt.Sprintf("generation %d, and the relying party has seen 6", i+1)) {
			t.Errorf("image %d: %v", i, err)
		}
		if !bytes.Equal(before.b, old.b) || p.calls != calls {
			t.Errorf("image %d: a refused volume was counted", i)
		}
	}
	if err := newReplay(t, p).raise(t.Context(), d); err != nil || p.last.Number != 7 {
		t.Errorf("the newest image: %v, %+v", err, p.last)
	}
}

// TestReplayCut: wherever opening or closing is cut off, the disk opens afterwards, and an image from before it opens
// only as long as nothing was given to the guest.
func TestReplayCut(t *testing.T) {
	lost := errors.New("no answer")
	for name, cut := range map[string]func(*party, *cutDisk){
		"before the record":               func(_ *party, d *cutDisk) { d.writes = 0 },
		"between record and counter":      func(p *party, _ *cutDisk) { p.before = lost },
		"behind the counter":              func(_ *party, d *cutDisk) { d.writes = 1 },
		"behind the counter, answer lost": func(p *party, _ *cutDisk) { p.after = lost },
	} {
		t.Run(name, func(t *testing.T) {
			p, d := counted(t)
			for range 3 * recordSlots { // more often than there are slots
				image := d.image()
				cut(p, d)
				if err := newReplay(t, p).raise(t.Context(), d); !errors.Is(err, lost) && !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				p.before, p.after, d.writes = nil, nil, -1
				if err := newReplay(t, p).raise(t.Context(), d); err != nil {
					t.Fatalf("locked out: %v", err)
				}
				if _, ok := errors.AsType[*ErrOldImage](newReplay(t, p).raise(t.Context(), image)); !ok {
					t.Fatal("the image from before opens still")
				}
			}
		})
	}
}

// TestReplayTwoGuests: of two guests with a copy each, one goes on and the other is refused, then and for good, though
// both copies have reached the same number.
func TestReplayTwoGuests(t *testing.T) {
	p, d := counted(t)
	other := d.image()
	// The other has asked and written, and then waits for long enough that the first opens.
	slow := newReplay(t, p)
	last := p.last
	all, err := slow.read(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := newReplay(t, p).raise(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := slow.propose(t.Context(), other, all, last); !errors.Is(err, ErrNotLast) {
		t.Fatalf("the second guest: %v", err)
	}
	err = newReplay(t, p).raise(t.Context(), other)
	if e, ok := errors.AsType[*ErrOldImage](err); !ok || *e != (ErrOldImage{Disk: 2, Last: 2}) || !strings.Contains(err.Error(), "another copy") {
		t.Errorf("the copy afterwards: %v", err)
	}
	if err := newReplay(t, p).raise(t.Context(), d); err != nil {
		t.Errorf("the first: %v", err)
	}
}

// overwriting is a counter under which another guest's write hits the same slot just before the counter is raised.
type overwriting struct {
	*party
	disk *cutDisk
}

func (o overwriting) Raise(ctx context.Context, volume string, from, to Generation) error {
	clear(o.disk.b)
	return o.party.Raise(ctx, volume, from, to)
}

// TestReplaySharedDisk: two guests on one disk. A loser's write into the winner's slot is found and put right.
func TestReplaySharedDisk(t *testing.T) {
	p, d := counted(t)
	r := newReplay(t, p)
	r.counter = overwriting{p, d}
	if err := r.raise(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := newReplay(t, p).raise(t.Context(), d); err != nil {
		t.Errorf("locked out: %v", err)
	}
	var won int
	for range 50 {
		var wg sync.WaitGroup
		errs := make([]error, 2)
		lock := &lockedDisk{cutDisk: d}
		for i := range errs {
			wg.Go(func() { errs[i] = newReplay(t, p).raise(context.Background(), lock) })
		}
		wg.Wait()
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, ErrNotLast):
				t.Fatal(err)
			}
		}
	}
	if won < 50 {
		t.Errorf("%d of 50 races had a winner", won)
	}
}

type lockedDisk struct {
	mu sync.Mutex // guards cutDisk
	*cutDisk
}

func (d *lockedDisk) ReadAt(p []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cutDisk.ReadAt(p, at)
}

func (d *lockedDisk) WriteAt(p []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cutDisk.WriteAt(p, at)
}

// TestReplayOwner: nothing is counted without a beginning, and the owner can let an older image be the last, once.
func TestReplayOwner(t *testing.T) {
	p, d := counted(t)
	if err := newReplay(t, &party{}).raise(t.Context(), d.image()); !errors.Is(err, ErrNoCounter) {
		t.Errorf("a relying party that knows nothing: %v", err)
	}
	old := d.image()
	for range 4 {
		if err := newReplay(t, p).raise(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	p.reset = true
	if err := newReplay(t, p).raise(t.Context(), &cutDisk{make([]byte, luks.RecordsSize), -1}); err == nil || !p.reset {
		t.Errorf("a disk without a record, after a reset: %v", err)
	}
	if err := newReplay(t, p).raise(t.Context(), old); err != nil || p.last.Number != 6 || p.reset {
		t.Errorf("the restored image: %v, %+v", err, p.last)
	}
	if _, ok := errors.AsType[*ErrOldImage](newReplay(t, p).raise(t.Context(), d)); !ok {
		t.Error("both images open")
	}
}

// TestHostileRecords: what the host writes into the room is no generation.
func TestHostileRecords(t *testing.T) {
	p, d := counted(t)
	r := newReplay(t, p)
	all, err := r.read(d)
	if err != nil || highest(all) != 1 {
		t.Fatal(all, err)
	}
	for slot, g := range all {
		for i := range recordSize {
			bad := d.image()
			if bad.b[slot*recordUnit+i] ^= 1; g.Number == 0 {
				continue
			}
			if found, err := r.read(bad); found[slot].Number != 0 || err != nil {
				t.Fatalf("byte %d changed: %+v, %v", i, found, err)
			}
		}
	}
	// Another volume's record, of the same key, is none of this one.
	other := newReplay(t, p)
	other.uuid = "v"
	if found, _ := other.read(d); highest(found) != 0 {
		t.Error("another volume's record was taken")
	}
	short := &cutDisk{d.b[:luks.RecordsSize-1], -1}
	if _, err := r.read(short); err == nil {
		t.Error("a short disk was read")
	}
}

// TestReplayCopiedRecords attacks the choice of a slot: a host that fills every slot with the last record, which
// verifies wherever it stands, must not keep the guest looking for another one.
func TestReplayCopiedRecords(t *testing.T) {
	p, d := counted(t)
	r := newReplay(t, p)
	for slot := range recordSlots {
		if err := r.write(d, slot, p.last); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- r.raise(context.Background(), d) }()
	select {
	case err := <-done:
		if err != nil || p.last.Number != 2 {
			t.Errorf("got %v, %+v", err, p.last)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it looks for a slot still")
	}
	if err := newReplay(t, p).raise(t.Context(), d); err != nil {
		t.Errorf("locked out: %v", err)
	}
}

// TestVolumeReplay: create, open and close of a whole volume count it, and an older image of the file does not open.
func TestVolumeReplay(t *testing.T) {
	p := &party{}
	c := volumeConfig(luks.CipherAESXTS, luks.IntegrityNone)
	c.Replay = true
	path := t.TempDir() + "/disk"
	m := newMapper(t)
	v := Volumes{Mapper: m, Keys: newSecret(), Counter: p, opener: opener(path)}
	if err := v.create(t.Context(), c, "/dev/vdb", openDisk(t, path, deviceSize), Zeros{}); err != nil || p.last.Number != 1 {
		t.Fatal(err, p.last)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o, err := v.open(t.Context(), c, "/dev/vdb", openDisk(t, path, 0))
	if err != nil || p.last.Number != 2 {
		t.Fatal(err, p.last)
	}
	key := o.replay.key
	if err := o.Close(); err != nil || p.last.Number != 3 {
		t.Fatal(err, p.last)
	}
	if err := o.Close(); err != nil || p.last.Number != 3 {
		t.Error("a second close:", err, p.last)
	}
	if len(bytes.Trim(key, "\x00")) > 0 {
		t.Error("the key of the records was not cleared")
	}
	newest, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(image []byte, want ErrOldImage) {
		t.Helper()
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := v.open(t.Context(), c, "/dev/vdb", openDisk(t, path, 0))
		if e, ok := errors.AsType[*ErrOldImage](err); !ok || *e != want || o != nil {
			t.Errorf("%v, want %v", err, &want)
		}
		m.checkClean(t)
	}
	refused(old, ErrOldImage{1, 3})
	clear(newest[volumeOffset-luks.RecordsSize : volumeOffset])
	refused(newest, ErrOldImage{0, 3})
	// A counter that cannot be told: the volume is closed, and says so.
	p.reset = true
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if o, err = v.open(t.Context(), c, "/dev/vdb", openDisk(t, path, 0)); err != nil {
		t.Fatal(err)
	}
	p.before = errors.New("no answer")
	if err := o.Close(); !errors.Is(err, p.before) || !errors.Is(err, ErrNotCounted) || !strings.Contains(err.Error(), "is closed") {
		t.Error(err)
	}
	m.checkClean(t)
}

// opener opens a file for every device.
func opener(path string) func(string, int) (*os.File, error) {
	return func(_ string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0) }
}

// TestReplayConfig: a counter without somebody to keep it, and one for a header that is not ours, are refused before a
// disk is looked at.
func TestReplayConfig(t *testing.T) {
	c := volumeConfig(luks.CipherAESXTS, luks.IntegrityNone)
	c.Replay = true
	if _, err := (Volumes{}).check(c); err == nil {
		t.Error("nobody keeps the counter")
	}
	c.Expect.OwnHeader = false
	if _, err := (Volumes{Counter: &party{}}).check(c); err == nil {
		t.Error("a foreign header")
	}
	c.Expect.OwnHeader, c.Header = true, "/x"
	if _, err := (Volumes{Counter: &party{}}).check(c); err == nil {
		t.Error("a detached header")
	}
}
