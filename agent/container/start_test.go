// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A program can have started and ended before Start comes to read the byte that
// says so. That is a start.
func TestAwaitByte(t *testing.T) {
	dead := &Container{exited: make(chan struct{})}
	close(dead.exited)
	for _, tt := range []struct {
		name string
		data string
		want error
	}{
		{"ended after the start", "0", nil},
		{"ended before the start", "", ErrNotRunning},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), execFIFO)
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			fifo, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer fifo.Close()
			if tt.data != "" {
				if err := os.WriteFile(path, []byte(tt.data), 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := fifo.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := dead.awaitByte(t.Context(), fifo); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// No goroutine but main's may ever run on the main thread; see Init.
func TestMainThreadIsHeld(t *testing.T) {
	var running, done sync.WaitGroup
	release := make(chan struct{})
	var mu sync.Mutex
	taken := false
	for range 100 { // each keeps a thread, so that every idle one gets its turn
		running.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if unix.Gettid() == unix.Getpid() {
				mu.Lock()
				taken = true
				mu.Unlock()
			}
			running.Done()
			<-release
		}()
	}
	running.Wait()
	close(release)
	done.Wait()
	if taken {
		t.Error("a goroutine ran on the main thread")
	}
}
