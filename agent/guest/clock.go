// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// RaiseClock sets the machine's clock to floor where the host has set it to an earlier
// time, and says whether it did. The clock stays host input above the floor: it makes
// nothing valid.
func RaiseClock(floor time.Time) (raised bool, err error) {
	return raiseClock(floor, time.Now, func(t time.Time) error {
		ts := unix.NsecToTimespec(t.UnixNano())
		return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
	})
}

func raiseClock(floor time.Time, now func() time.Time, set func(time.Time) error) (raised bool, err error) {
	if !now().Before(floor) {
		return false, nil
	}
	if err := set(floor); err != nil {
		return false, fmt.Errorf("setting the clock to %s: %w", floor.Format(time.DateOnly), err)
	}
	if now().Before(floor) {
		return false, errors.New("setting the clock took no effect")
	}
	return true, nil
}

// uptime is how long the kernel runs, which no clock of the host's changes.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // a clock that every kernel has
	}
	return time.Duration(ts.Nano())
}
