// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Restart says when a container that has ended is started again.
type Restart int

// The restart policies. A container that was stopped stays down under all of them.
const (
	RestartNo        Restart = iota
	RestartOnFailure         // when it did not start, or ended with another status than 0
	RestartAlways
)

// ErrFinal is wrapped by the error of a run that would fail again in the same way: an
// image that policy denies, a refused spec. It is not tried again.
var ErrFinal = errors.New("trying again does not help")

// ErrUnknown means that no container of that name is declared.
var ErrUnknown = errors.New("no such container")

// Run runs a container once, to its end, and returns its exit code. When ctx ends first it
// asks the container to end, insists after a while, and returns. An error says that the
// container did not start or could not be waited for.
type Run func(ctx context.Context, p *Process) (code int, err error)

// Spec is one declared container.
type Spec struct {
	Name, Image string
	Restart     Restart
	Run         Run
	Changed     func(State) // is told each new state; nil is nobody
}

// State is what a container is doing.
type State string

// The states of a container.
const (
	Starting State = "starting" // its image is pulled, it is created
	Running  State = "running"
	Waiting  State = "waiting" // for its next start
	Exited   State = "exited"  // it has ended and stays so
	Failed   State = "failed"  // it did not start and stays so
	Stopping State = "stopping"
	Stopped  State = "stopped" // on request
)

// Status is a container as casemate ps shows it.
type Status struct {
	Name     string `json:"name"`
	Image    string `json:"image"`
	Digest   string `json:"digest,omitzero"` // of the platform's manifest, once known
	State    State  `json:"state"`
	Seconds  int64  `json:"seconds"` // in this state
	PID      int    `json:"pid,omitzero"`
	Restarts int    `json:"restarts"`
	ExitCode *int   `json:"exit_code,omitzero"` // of the last run that ended
	Error    string `json:"error,omitzero"`     // why the last run did not start
}

// Supervisor keeps containers running. Its methods may be called at the same time.
type Supervisor struct {
	log     *slog.Logger
	order   []*task
	byName  map[string]*task
	running sync.WaitGroup
}

// task is one container. Run's goroutine alone starts it.
type task struct {
	spec   Spec
	output ring
	done   chan struct{} // closed when it is not started any more

	mu      sync.Mutex
	status  Status             // guarded by mu; Seconds is not used
	since   time.Time          // guarded by mu
	stopped bool               // guarded by mu; stop was asked for
	stop    context.CancelFunc // guarded by mu; nil before Run
}

// Process is the side of a task that its Run sees.
type Process struct{ t *task }

// Output gets what the container writes. It takes everything at once.
func (p *Process) Output() io.Writer { return &p.t.output }

// Started says that the container's program runs, and from which manifest.
func (p *Process) Started(pid int, digest string) {
	p.t.set(func(s *Status) {
		s.Digest, s.PID, s.Error = digest, pid, ""
		if s.State != Stopping {
			s.State = Running
		}
	})
}

// New prepares containers, whose names differ. Nothing runs before Run.
func New(specs []Spec, log *slog.Logger) *Supervisor {
	s := &Supervisor{log: log, byName: map[string]*task{}}
	for _, spec := range specs {
		t := &task{spec: spec, done: make(chan struct{}), since: time.Now(), status: Status{Name: spec.Name, Image: spec.Image, State: Starting}}
		s.order = append(s.order, t)
		s.byName[spec.Name] = t
	}
	return s
}

// Run starts all containers and returns when ctx has ended and all of them are down. It
// is called once.
func (s *Supervisor) Run(ctx context.Context) {
	for _, t := range s.order {
		own, cancel := context.WithCancel(ctx)
		t.mu.Lock()
		t.stop = cancel
		if t.stopped {
			cancel()
		}
		t.mu.Unlock()
		s.running.Go(func() {
			defer close(t.done)
			defer cancel()
			t.loop(own, s.log)
		})
	}
	<-ctx.Done()
	s.running.Wait()
}

// Stop asks a container to end, keeps it down, and returns when it is, or with ctx.
func (s *Supervisor) Stop(ctx context.Context, name string) error {
	t, ok := s.byName[name]
	if !ok {
		return fmt.Errorf("stopping %.64q: %w", name, ErrUnknown)
	}
	t.mu.Lock()
	t.stopped = true
	if t.stop != nil {
		t.stop()
	}
	t.mu.Unlock()
	t.set(func(s *Status) {
		if s.State == Running || s.State == Starting {
			s.State = Stopping
		}
	})
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping %s: %w", name, context.Cause(ctx))
	}
}

// List returns every container in the order of its declaration.
func (s *Supervisor) List() []Status {
	list := make([]Status, 0, len(s.order))
	for _, t := range s.order {
		list = append(list, t.snapshot())
	}
	return list
}

// set changes the status; a new state begins now.
func (t *task) set(change func(*Status)) {
	t.mu.Lock()
	before := t.status.State
	change(&t.status)
	now := t.status.State
	if now != before {
		t.since = time.Now()
	}
	t.mu.Unlock()
	if now != before && t.spec.Changed != nil {
		t.spec.Changed(now)
	}
}

func (t *task) snapshot() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.status
	s.Seconds = int64(time.Since(t.since) / time.Second)
	return s
}

// loop runs the container until it is to stay down.
func (t *task) loop(ctx context.Context, log *slog.Logger) {
	var pause backoff
	for ctx.Err() == nil {
		began := time.Now()
		code, err := t.spec.Run(ctx, &Process{t})
		again := t.ended(ctx, code, err)
		if err != nil && ctx.Err() == nil {
			log.Warn("container does not run", "name", t.spec.Name, "error", err)
		}
		if !again {
			return
		}
		timer := time.NewTimer(pause.after(time.Since(began)))
		select {
		case <-timer.C:
			t.set(func(s *Status) { s.State, s.Restarts = Starting, s.Restarts+1 })
		case <-ctx.Done():
			timer.Stop()
		}
	}
	t.set(func(s *Status) { s.State, s.PID = Stopped, 0 })
}

// ended notes how a run ended and says whether there will be another.
func (t *task) ended(ctx context.Context, code int, err error) (again bool) {
	t.set(func(s *Status) {
		s.PID = 0
		if err == nil {
			s.ExitCode, s.Error = &code, ""
		} else if ctx.Err() == nil {
			s.Error = err.Error()
		}
		again = t.spec.Restart == RestartAlways || t.spec.Restart == RestartOnFailure && (err != nil || code != 0)
		switch {
		case ctx.Err() != nil:
			s.State, again = Stopped, false
		case again && !errors.Is(err, ErrFinal):
			s.State = Waiting
		case err != nil:
			s.State, again = Failed, false
		default:
			s.State = Exited
		}
	})
	return again
}
