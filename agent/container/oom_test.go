// SPDX-License-Identifier: Apache-2.0

package container

import "testing"

// TestEveryOutOfMemoryIsTold: a kill is told once, also when the news that the container is empty came first.
func TestEveryOutOfMemoryIsTold(t *testing.T) {
	for _, tt := range []struct {
		name   string
		heard  int // events of libcontainer
		ranOut bool
		want   int
	}{
		{"heard", 1, true, 1}, {"heard twice", 2, true, 2}, {"missed", 0, true, 1}, {"nothing happened", 0, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &Container{exited: make(chan struct{}), ranOut: tt.ranOut}
			events := make(chan struct{}, tt.heard)
			for range tt.heard {
				events <- struct{}{}
			}
			close(events)
			close(c.exited)
			got := 0
			for range c.allOOM(events) {
				got++
			}
			if got != tt.want {
				t.Errorf("got %d events, want %d", got, tt.want)
			}
		})
	}
}
