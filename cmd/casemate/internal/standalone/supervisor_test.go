// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// alone supervises one container in the bubble's time and returns what undoes it.
func alone(t *testing.T, restart Restart, run Run) (*Supervisor, func()) {
	t.Helper()
	s := New([]Spec{{Name: "c", Image: "i", Restart: restart, Run: run}}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	return s, func() { cancel(); <-done }
}

func TestRestartPolicies(t *testing.T) {
	broken := errors.New("no network")
	final := fmt.Errorf("%w: denied", ErrFinal)
	for _, tt := range []struct {
		name    string
		restart Restart
		code    int
		err     error
		again   bool
		state   State
	}{
		{"no, done", RestartNo, 0, nil, false, Exited},
		{"no, failed", RestartNo, 1, nil, false, Exited},
		{"no, not started", RestartNo, 0, broken, false, Failed},
		{"on failure, done", RestartOnFailure, 0, nil, false, Exited},
		{"on failure, failed", RestartOnFailure, 1, nil, true, Waiting},
		{"on failure, not started", RestartOnFailure, 0, broken, true, Waiting},
		{"always, done", RestartAlways, 0, nil, true, Waiting},
		{"always, not started", RestartAlways, 0, broken, true, Waiting},
		{"always, refused for good", RestartAlways, 0, final, false, Failed},
		{"on failure, refused for good", RestartOnFailure, 0, final, false, Failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				runs := 0
				s, end := alone(t, tt.restart, func(context.Context, *Process) (int, error) { runs++; return tt.code, tt.err })
				synctest.Wait()
				got := s.List()[0]
				if got.State != tt.state || (got.Error != "") != (tt.err != nil) || (got.ExitCode != nil) != (tt.err == nil) {
					t.Errorf("got %+v, want %s", got, tt.state)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if (runs > 1) != tt.again || s.List()[0].Restarts != runs-1 {
					t.Errorf("%d runs, %d restarts noted, want more than one: %v", runs, s.List()[0].Restarts, tt.again)
				}
				// A pause of a minute at the most, and no storm: 8 doublings come before it.
				if tt.again && (runs < 60 || runs > 70) {
					t.Errorf("%d runs in an hour", runs)
				}
				end()
			})
		})
	}
}

func TestBackoffForgetsAfterASteadyRun(t *testing.T) {
	var b backoff
	var got []time.Duration
	for _, run := range []time.Duration{0, 0, time.Second, steady, 0} {
		got = append(got, b.after(run))
	}
	want := []time.Duration{firstPause, 2 * firstPause, 4 * firstPause, firstPause, 2 * firstPause}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// running is a Run that lasts until it is asked to end and then takes a while.
func running(code int) Run {
	return func(ctx context.Context, p *Process) (int, error) {
		_, _ = io.WriteString(p.Output(), "begin\n")
		p.Started(7, "sha256:d")
		<-ctx.Done()
		time.Sleep(3 * time.Second)
		_, _ = io.WriteString(p.Output(), "end\n")
		return code, nil
	}
}

func TestStopKeepsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, end := alone(t, RestartAlways, running(143))
		synctest.Wait()
		if got := s.List()[0]; got.State != Running || got.PID != 7 || got.Digest != "sha256:d" {
			t.Errorf("got %+v", got)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Stop(short, "c"); !errors.Is(err, context.DeadlineExceeded) || s.List()[0].State != Stopping {
			t.Errorf("stopping in a second: %v, %+v", err, s.List()[0])
		}
		if err := s.Stop(t.Context(), "c"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if got := s.List()[0]; got.State != Stopped || got.PID != 0 || *got.ExitCode != 143 || got.Restarts != 0 {
			t.Errorf("got %+v", got)
		}
		if err := s.Stop(t.Context(), "x"); !errors.Is(err, ErrUnknown) {
			t.Errorf("an unknown name: %v", err)
		}
		end()
	})
}

// Stopped while it waits for its next start, it does not start.
func TestStopWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		s, end := alone(t, RestartAlways, func(context.Context, *Process) (int, error) { runs++; return 1, nil })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		before := runs
		if err := s.Stop(t.Context(), "c"); err != nil || s.List()[0].State != Stopped {
			t.Errorf("%v, %+v", err, s.List()[0])
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if runs != before {
			t.Errorf("%d runs after the stop", runs-before)
		}
		end()
	})
}

// Run returns when everything is down, not before.
func TestEndWaitsForContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, end := alone(t, RestartAlways, running(0))
		synctest.Wait()
		began := time.Now()
		end()
		if waited := time.Since(began); waited != 3*time.Second || s.List()[0].State != Stopped {
			t.Errorf("ended after %v in state %s", waited, s.List()[0].State)
		}
	})
}

// TestChanges: whoever watches is told each new state once, in order.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []State
		s := New([]Spec{{Name: "c", Image: "i", Restart: RestartOnFailure, Changed: func(s State) { got = append(got, s) }, Run: func(ctx context.Context, p *Process) (int, error) {
			p.Started(7, "sha256:d")
			p.Started(7, "sha256:d")
			if len(got) < 3 {
				return 1, nil
			}
			<-ctx.Done()
			return 0, nil
		}}}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		<-done
		if want := []State{Running, Waiting, Starting, Running, Stopped}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
