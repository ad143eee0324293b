// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/container"
)

// DefaultDir is where kata's runtimes name the pod's files.
const DefaultDir = "/run/kata-containers"

// Images brings verified images into the guest.
type Images interface {
	// Open pulls reference as the image policy allows and mounts its tree on
	// dir/rootfs; dir is absent. A pull outlives ctx, so that the next call joins
	// it. An error that wraps a *[Failure] tells the host why.
	Open(ctx context.Context, reference, dir string) (*Image, error)
}

// Image is an image mounted for one container.
type Image struct {
	Digest string // of the platform's manifest
	// Process is what the image's own config asks for: Args, Env, Cwd, User.
	Process specs.Process
	// User turns "USER" or "USER:GROUP", each a name or a number, into numbers by the accounts in the mounted tree,
	// without following a link out of it. nil means that names are not served.
	User func(spec string) (specs.User, error)
	// Close unmounts the tree and removes its directory.
	Close func() error
}

// Failure is an error whose phrase the host may read: a fixed text, and what the
// host itself sent.
type Failure struct {
	Code   codes.Code
	Phrase string
	Err    error // for the guest's own log; may be nil
}

func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Phrase
	}
	return f.Phrase + ": " + f.Err.Error()
}

// Unwrap returns Err.
func (f *Failure) Unwrap() error { return f.Err }

// GRPCStatus is what goes to the host: the phrase alone.
func (f *Failure) GRPCStatus() *status.Status { return status.New(f.Code, f.Phrase) }

func fail(code codes.Code, format string, args ...any) error {
	return &Failure{Code: code, Phrase: fmt.Sprintf(format, args...)}
}

// Config is what a Service needs. All but what may be nil is required.
type Config struct {
	// Dir holds everything of the pod; see DefaultDir. CreateSandbox empties it.
	Dir     string
	Runtime *container.Runtime
	Images  Images
	// Layers, when not nil, opens images whose layers the host supplies.
	Layers Layers
	// Volumes, when not nil, opens the volumes that requests name as devices.
	Volumes Volumes
	// Sized, when not nil, mounts on point a new file system for so many bytes of files, which unmounting gives back;
	// ENOSPC says that there is no room for it. Without it a volume with a size is served in memory alone.
	Sized func(size int64, point string) error
	// Encrypted, when not nil, makes a file system with integrity on all of the block device node, under a key that
	// ends with it, and mounts it on point. What it returns undoes that.
	Encrypted func(ctx context.Context, node, point string) (func() error, error)
	// Devices finds the disks of volumes and interfaces that come late; nil finds none.
	Devices Devices
	// CDI describes the devices that annotations name; nil describes none.
	CDI CDI
	// NetNS returns the path of the network namespace that the pod lives in, "" for the guest's own; nil is the guest's.
	// It is asked with every request and comes from measured configuration. With a path the guest is a peer pod's.
	NetNS func() string
	// Pause is the program of pause containers, an absolute path to a static binary
	// that waits and collects its children when it is called as /pause.
	Pause string
	// Admit judges the process that a request asks for against the one of the image's
	// config, once the image is there; nil leaves that to the policy before the
	// handlers. See AsImageSays.
	Admit func(image, requested *specs.Process) error
	// NoLogs, when not nil, says whether the host may have no output of a process that is made now: it reads one line
	// in its place.
	NoLogs func() bool
	// Begun, when not nil, is called once a request's id is taken, so that others
	// are judged while an image is pulled.
	Begun func(context.Context)
	// Starting, when not nil, is told of each of an image's containers before any program runs in it; its error keeps it
	// from running.
	Starting func(Start) error
	// Failed, when not nil, is told why a request that was let in was not carried out, with the name of its message and
	// the container that it names, "" for none. The error has more than the host reads. It must not block.
	Failed  func(request, container string, err error)
	Version string
	// Init says whether this process is the machine's first.
	Init bool
	// Shutdown is called when the host has destroyed the sandbox; nil does nothing.
	Shutdown func()
	Log      *slog.Logger
}

// Start is a container that is about to run.
type Start struct {
	ID, Image string // Image is the reference as the host named it
	Digest    string // of the image's manifest
}

// Service holds the pod. Its handlers may run at the same time.
type Service struct {
	cfg  Config
	ooms chan string
	// outputs lends buffers to the answers of reads.
	outputs outputs
	over    chan struct{} // closed when the sandbox has been: nobody waits for its events any more

	mu         sync.Mutex // guards what follows
	sandbox    *sandbox   // nil before CreateSandbox
	containers map[string]*entry
	driven     map[string]string // PCI functions that containers drive, by whose id

	ended bool // the sandbox has been: there is no other

	// volumesMu guards what follows. It is held while a volume is made or removed and while a file is copied.
	volumesMu sync.Mutex
	volumes   map[string]*volume
	trees     map[string]bool // below shared/containers, what was copied
}

// oomBacklog is how many out-of-memory events wait for the host to ask.
const oomBacklog = 64

// New makes an empty service: it has no sandbox yet.
func New(cfg Config) (*Service, error) {
	if !filepath.IsAbs(cfg.Dir) || cfg.Runtime == nil || cfg.Images == nil || !filepath.IsAbs(cfg.Pause) || cfg.Log == nil {
		return nil, errors.New("making the pod service: directory, runtime, images, pause program and log are required")
	}
	return &Service{cfg: cfg, ooms: make(chan string, oomBacklog), over: make(chan struct{}), containers: map[string]*entry{}, driven: map[string]string{}, volumes: map[string]*volume{}, trees: map[string]bool{}}, nil
}

// Handlers are the served methods of grpc.AgentService, by their names.
func (s *Service) Handlers() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"AddARPNeighbors":                handler(s, s.addNeighbors),
		"CloseStdin":                     handler(s, s.closeStdin),
		"CopyFile":                       handler(s, s.copyFile),
		"CreateContainer":                handler(s, s.createContainer),
		"CreateSandbox":                  handler(s, s.createSandbox),
		"DestroySandbox":                 handler(s, s.destroySandbox),
		"ExecProcess":                    handler(s, s.execProcess),
		"GetDiagnosticData":              handler(s, s.diagnosticData),
		"GetGuestDetails":                handler(s, s.guestDetails),
		"GetOOMEvent":                    handler(s, s.oomEvent),
		"GetVolumeStats":                 handler(s, s.volumeStats),
		"ListInterfaces":                 handler(s, s.listInterfaces),
		"ListRoutes":                     handler(s, s.listRoutes),
		"OnlineCPUMem":                   handler(s, s.onlineCPUs),
		"PauseContainer":                 handler(s, s.pauseContainer),
		"ReadStderr":                     s.reading((*streams).err),
		"ReadStdout":                     s.reading((*streams).out),
		"RemoveContainer":                handler(s, s.removeContainer),
		"RemoveStaleVirtiofsShareMounts": handler(s, s.removeStaleMounts),
		"ResumeContainer":                handler(s, s.resumeContainer),
		"SignalProcess":                  handler(s, s.signalProcess),
		"StartContainer":                 handler(s, s.startContainer),
		"StatsContainer":                 handler(s, s.statsContainer),
		"TtyWinResize":                   handler(s, s.resizeTerminal),
		"UpdateContainer":                handler(s, s.updateContainer),
		"UpdateInterface":                handler(s, s.updateInterface),
		"UpdateRoutes":                   handler(s, s.updateRoutes),
		"WaitProcess":                    handler(s, s.waitProcess),
		"WriteStdin":                     handler(s, s.writeStdin),
	}
}

// handler adapts a typed method to the library's form. R is a generated message and Q one or an *output. Of
// an error that wraps a Failure the host reads the phrase, and the log the rest.
func handler[R any, P interface {
	*R
	proto.Message
}, Q any](s *Service, f func(context.Context, P) (Q, error)) ttrpc.Method {
	return func(ctx context.Context, decode func(any) error) (any, error) {
		req := P(new(R))
		if err := decode(req); err != nil {
			return nil, err
		}
		resp, err := f(ctx, req)
		if err != nil && s.cfg.Failed != nil {
			s.cfg.Failed(string(req.ProtoReflect().Descriptor().Name()), containerOf(req), err)
		}
		if failure, ok := errors.AsType[*Failure](err); ok {
			if failure.Err != nil {
				s.cfg.Log.WarnContext(ctx, "request refused", "request", fmt.Sprintf("%T", req), "error", err)
			}
			return nil, failure
		}
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
}

// containerOf is the container that a request names, "" for none.
func containerOf(req proto.Message) string {
	if r, ok := req.(interface{ GetContainerId() string }); ok {
		return r.GetContainerId()
	}
	return ""
}

// entry is one container, from the moment its id is taken.
type entry struct {
	id        string
	name      string               // in the pod's file, "" where the engine does not say
	container *container.Container // nil while it is being made
	streams   *streams
	sandbox   bool // the pause container
	image     string
	digest    string
	resolve   func(spec string) (specs.User, error) // nil for the pause container
	// termination is the file of its termination message, "" for none.
	termination string
	closing     sync.Mutex
	undo        []func() error      // guarded by closing once the container is made
	watched     bool                // guarded by closing
	announced   bool                // guarded by closing
	execs       map[string]*process // guarded by Service.mu; runner is nil while one is being made
}

// find returns a container that has been made.
func (s *Service) find(id string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.containers[id]
	if e == nil || e.container == nil {
		return nil, fail(codes.InvalidArgument, "Invalid container id")
	}
	return e, nil
}

// process finds a process: the first one by one of its two names, or a further one.
func (s *Service) process(id, execID string) (*process, error) {
	e, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if execID == "" || execID == id {
		return &process{runner: e.container, streams: e.streams}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := e.execs[execID]
	if p == nil || p.runner == nil {
		return nil, fail(codes.NotFound, "Process not found: %.128s", execID)
	}
	return p, nil
}

// close undoes in reverse and returns the first error that counts.
func (e *entry) close() error {
	e.closing.Lock()
	defer e.closing.Unlock()
	var errs []error
	for i := len(e.undo) - 1; i >= 0; i-- {
		errs = append(errs, e.undo[i]())
	}
	e.undo = nil
	return errors.Join(errs...)
}

// Close ends every container and removes what they have left, the sandbox's
// namespaces and mounts included. The runtime stays the caller's.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	var all []*entry
	for id, e := range s.containers {
		if e.container != nil {
			all = append(all, e)
			delete(s.containers, id)
		}
	}
	box := s.sandbox
	if !s.ended {
		close(s.over)
	}
	s.sandbox, s.ended = nil, true
	s.mu.Unlock()
	var errs []error
	for _, e := range all {
		errs = append(errs, s.remove(ctx, e))
	}
	if box != nil {
		errs = append(errs, box.close())
	}
	return errors.Join(errs...)
}
