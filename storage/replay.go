// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/luks"
)

// Counter is who remembers, outside of the host's reach, which generation of a volume is the last.
type Counter interface {
	// Last returns it. Its number is 0 if the volume has none. With reset the volume's owner has said that whatever
	// generation the disk has is to be taken for the last, once.
	Last(ctx context.Context, volume string) (last Generation, reset bool, err error)
	// Raise makes to the last if from is, or succeeds if to is the last already; in any other case, the error is
	// ErrNotLast and nothing changes.
	Raise(ctx context.Context, volume string, from, to Generation) error
}

// ErrNotLast says that a counter was not what it was to be raised from: somebody else has raised it.
var ErrNotLast = errors.New("another guest has raised the counter: the volume is open elsewhere")

// ErrNotCounted says that a volume was closed and its counter not raised.
var ErrNotCounted = errors.New("it is closed, but its counter was not raised: images made while it was open stay valid until it is opened again")

// ErrNoCounter says that nobody has counted this volume.
var ErrNoCounter = errors.New("the relying party has no counter of this volume; its owner may let it begin with what the disk says")

// ErrOldImage is a disk whose generation is not the last: an older image of it, or the copy of one that another guest
// went on with.
type ErrOldImage struct {
	Disk uint64 // the highest number that the disk has, 0 if it has none
	Last uint64 // the relying party's
}

func (e *ErrOldImage) Error() string {
	switch {
	case e.Disk == 0:
		return fmt.Sprintf("the disk has no generation of this volume, and the relying party has seen %d", e.Last)
	case e.Disk >= e.Last:
		return fmt.Sprintf("the disk's generation %d is not the %d that the relying party has seen: another copy of the disk was opened since", e.Disk, e.Last)
	}
	return fmt.Sprintf("the disk is at generation %d, and the relying party has seen %d: this is an older image of it", e.Disk, e.Last)
}

// closeTime is what raising the counter may take when a volume is closed.
const closeTime = 10 * time.Second

// replay is a volume's counter while it is open.
type replay struct {
	*records
	counter Counter
	volume  string
	reopen  func() (*os.File, error) // the disk, for writing
}

// replay returns nil for a volume without a counter. The caller closes it.
func (v Volumes) replay(c VolumeConfig, device string, unlocked *luks.Volume) (*replay, error) {
	if !c.Replay {
		return nil, nil
	}
	r, err := newRecords(unlocked)
	if err != nil {
		return nil, err
	}
	reopen := func() (*os.File, error) { return v.disk(device, os.O_RDWR) }
	return &replay{records: r, counter: v.Counter, volume: c.Name, reopen: reopen}, nil
}

// raise makes a new generation, first on the disk and then at the counter, and returns once both have it. It is the
// same at opening, before anything is mapped, and behind closing.
//
// The counter decides. A record that it does not know yet is a proposal in a slot beside the last one's, so whatever is
// cut off leaves the last one in place: before the counter is raised the old record is the last, afterwards the new one,
// and the disk has both. An error of the counter may have come behind its change; then the disk has that one too.
func (r *replay) raise(ctx context.Context, disk recordDisk) error {
	last, reset, err := r.counter.Last(ctx, r.volume)
	if err != nil {
		return err
	}
	if last.Number == 0 && !reset {
		return ErrNoCounter
	}
	forget(disk, r.at)
	all, err := r.read(disk)
	if err != nil {
		return err
	}
	switch top := highest(all); {
	case reset && top == 0, !reset && !slices.Contains(all[:], last):
		return &ErrOldImage{Disk: top, Last: last.Number}
	}
	return r.propose(ctx, disk, all, last)
}

// begin counts a new volume. One that had the name before is at its end with this: its disks do not open any more.
func (r *replay) begin(ctx context.Context, disk recordDisk) error {
	last, _, err := r.counter.Last(ctx, r.volume)
	if err != nil {
		return err
	}
	return r.propose(ctx, disk, [recordSlots]Generation{}, last)
}

func highest(all [recordSlots]Generation) (top uint64) {
	for _, g := range all {
		top = max(top, g.Number)
	}
	return top
}

func (r *replay) propose(ctx context.Context, disk recordDisk, all [recordSlots]Generation, last Generation) error {
	top := max(last.Number, highest(all))
	if top == math.MaxUint64 {
		return fmt.Errorf("generation %d is the highest there is", top)
	}
	next := Generation{Number: top + 1}
	rand.Read(next.ID[:]) // never fails
	slot := spare(all, last)
	if err := r.write(disk, slot, next); err != nil {
		return err
	}
	if err := r.counter.Raise(ctx, r.volume, last, next); err != nil {
		return err
	}
	// A second place: another guest on the same disk, which has lost or is about to, may hit the first one.
	all[slot] = next
	return r.write(disk, spare(all, next), next)
}

// forget drops what the kernel remembers of the records, so that the disk itself is read.
func forget(disk recordDisk, at int64) {
	if f, ok := disk.(*os.File); ok {
		// Best effort: the disk of one guest alone reads the same either way.
		_ = unix.Fadvise(int(f.Fd()), at, luks.RecordsSize, unix.FADV_DONTNEED)
	}
}

// raiseAgain is raise behind closing, when the caller's context may have ended and the kernel has let go of the disk.
func (r *replay) raiseAgain() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if err := r.withDisk(ctx, r.raise); err != nil {
		return fmt.Errorf("volume %s: %w: %w", r.volume, ErrNotCounted, err)
	}
	return nil
}

func (r *replay) withDisk(ctx context.Context, do func(context.Context, recordDisk) error) error {
	disk, err := r.reopen()
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, disk), disk.Close())
}

// Raise raises the counter of a volume that is closed, as closing does it: for a volume that another process has opened,
// behind CloseNamed. For one without a counter there is nothing to do.
func (v Volumes) Raise(ctx context.Context, c VolumeConfig, device string) error {
	if err := v.raise(ctx, c, device); err != nil {
		return fmt.Errorf("raising the counter of volume %s on %s: %w", c.Name, device, err)
	}
	return nil
}

func (v Volumes) raise(ctx context.Context, c VolumeConfig, device string) (err error) {
	if c, err = v.check(c); err != nil || !c.Replay {
		return err
	}
	disk, err := v.disk(device, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	key, err := v.key(ctx, c.Key)
	if err != nil {
		return err
	}
	defer clear(key)
	unlocked, err := openHeader(ctx, c, disk, key)
	if err != nil {
		return err
	}
	defer unlocked.Close()
	r, err := v.replay(c, device, unlocked)
	if err != nil {
		return err
	}
	defer r.close()
	return r.raise(ctx, disk)
}
