// SPDX-License-Identifier: Apache-2.0

package standalone

import "time"

const (
	// firstPause is before the first restart; each further pause is twice as long, up to maxPause.
	firstPause = 250 * time.Millisecond
	maxPause   = time.Minute
	// steady is how long a run must last for the next pause to be firstPause again.
	steady = 10 * time.Second
)

// backoff is the pause before the next start.
type backoff struct{ next time.Duration }

// after returns the pause that follows a run of the given length.
func (b *backoff) after(run time.Duration) time.Duration {
	if run >= steady || b.next == 0 {
		b.next = firstPause
	}
	pause := b.next
	b.next = min(2*b.next, maxPause)
	return pause
}
