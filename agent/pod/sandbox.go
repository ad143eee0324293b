// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
)

const (
	// maxDNS caps the lines of resolv.conf that a request brings.
	maxDNS = 32
	// maxSHM caps the pod's /dev/shm at what a request may ask for.
	maxSHM = 64 << 30
)

// validHostname is RFC 1123 with the kernel's own limit.
var validHostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)

// sandbox is what the containers of the pod share.
type sandbox struct {
	id         string
	namespaces namespaces
	undo       []func() error
}

func (b *sandbox) close() error {
	var errs []error
	for i := len(b.undo) - 1; i >= 0; i-- {
		errs = append(errs, b.undo[i]())
	}
	b.undo = nil
	return errors.Join(errs...)
}

// createSandbox makes the pod's directories, namespaces, shared memory and
// resolv.conf. It is for once: a second one would take the directories from under
// the containers.
func (s *Service) createSandbox(_ context.Context, req *kata.CreateSandboxRequest) (*emptypb.Empty, error) {
	if err := checkSandbox(req); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandbox != nil || s.ended {
		return nil, fail(codes.FailedPrecondition, "the sandbox exists or has ended: one guest has one")
	}
	box := &sandbox{id: req.GetSandboxId()}
	if err := s.fillSandbox(box, req); err != nil {
		return nil, errors.Join(err, box.close())
	}
	s.sandbox = box
	return &emptypb.Empty{}, nil
}

func checkSandbox(req *kata.CreateSandboxRequest) error {
	switch {
	case container.CheckID(req.GetSandboxId()) != nil:
		return fail(codes.InvalidArgument, "sandbox id %.80q is no name", req.GetSandboxId())
	case req.GetGuestHookPath() != "":
		return fail(codes.PermissionDenied, "CreateSandboxRequest is blocked by policy: guest-hooks: programs of the host's choice do not run in this guest")
	case len(req.GetKernelModules()) > 0:
		return fail(codes.PermissionDenied, "CreateSandboxRequest is blocked by policy: kernel-modules: modules come with the measured image only")
	case req.GetHostname() != "" && !validHostname.MatchString(req.GetHostname()):
		return fail(codes.InvalidArgument, "hostname %.80q is no host name", req.GetHostname())
	case len(req.GetStorages()) > 1:
		return fail(codes.InvalidArgument, "%d storages: a sandbox has its shared memory alone", len(req.GetStorages()))
	case len(req.GetDns()) > maxDNS:
		return fail(codes.InvalidArgument, "%d dns lines, at most %d", len(req.GetDns()), maxDNS)
	}
	return nil
}

func (s *Service) fillSandbox(box *sandbox, req *kata.CreateSandboxRequest) error {
	if err := emptyDirectory(s.cfg.Dir); err != nil {
		return fmt.Errorf("preparing %s: %w", s.cfg.Dir, err)
	}
	for _, dir := range []string{"shared/containers", "sandbox"} {
		if err := os.MkdirAll(filepath.Join(s.cfg.Dir, dir), 0o755); err != nil { //nolint:gosec // containers' users walk through
			return err
		}
	}
	if err := s.mountCopies(box); err != nil {
		return err
	}
	ns, err := makeNamespaces(filepath.Join(s.cfg.Dir, "namespaces"), req.GetHostname())
	if err != nil {
		return err
	}
	box.namespaces = ns
	box.undo = append(box.undo, func() error { return box.namespaces.close() })
	for _, st := range req.GetStorages() {
		if err := s.mountShared(box, st); err != nil {
			return err
		}
	}
	return s.writeResolver(box, req.GetDns())
}

// emptyDirectory makes dir an empty directory of this user, but for a socket in it: a peer pod's forwarder looks for the
// agent's own there. What is mounted below it stops the call: nothing else of ours lives there.
func emptyDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // containers' users walk through
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type() == os.ModeSocket {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// mountShared mounts the pod's shared memory: the one storage of a sandbox. A
// shared file system of the host is none for a confidential guest.
func (s *Service) mountShared(box *sandbox, st *kata.Storage) error {
	want := filepath.Join(s.cfg.Dir, "sandbox", "shm")
	if st.GetDriver() != "ephemeral" || st.GetFstype() != "tmpfs" || st.GetMountPoint() != want || len(st.GetDriverOptions()) > 0 || st.GetFsGroup() != nil {
		return fail(codes.PermissionDenied, "CreateSandboxRequest is blocked by policy: storage: driver %.40q at %.200q: only shared memory at %s is served", st.GetDriver(), st.GetMountPoint(), want)
	}
	size := int64(0)
	for _, o := range st.GetOptions() {
		switch key, value, _ := strings.Cut(o, "="); {
		case o == "noexec", o == "nosuid", o == "nodev", o == "mode=1777":
		case key == "size":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n <= 0 || n > maxSHM {
				return fail(codes.InvalidArgument, "shared memory option %.80q: want size=BYTES, at most %d", o, int64(maxSHM))
			}
			size = n
		default:
			return fail(codes.InvalidArgument, "shared memory option %.80q is not served", o)
		}
	}
	if err := os.MkdirAll(want, 0o700); err != nil {
		return err
	}
	data := "mode=1777"
	if size > 0 {
		data += fmt.Sprintf(",size=%d", size)
	}
	if err := unix.Mount("shm", want, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return fmt.Errorf("mounting shared memory: %w", err)
	}
	box.undo = append(box.undo, func() error { return unmount(want) })
	return nil
}

func unmount(target string) error {
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmounting %s: %w", target, err)
	}
	return nil
}

// resolver is where programs of the guest, the puller above all, look for name
// servers.
const resolver = "/etc/resolv.conf"

// writeResolver puts the name servers that the host offers in the place of the
// image's empty file. They can lead nowhere that is not proved by a certificate, a
// digest or a signature.
func (s *Service) writeResolver(box *sandbox, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	info, err := os.Lstat(resolver)
	if err != nil || !info.Mode().IsRegular() {
		return nil // a system with a resolver of its own
	}
	text, err := resolverText(lines)
	if err != nil {
		return err
	}
	file := filepath.Join(s.cfg.Dir, "sandbox", "resolv.conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // as public as name servers are
		return err
	}
	if err := unix.Mount(file, resolver, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s: %w", resolver, err)
	}
	box.undo = append(box.undo, func() error { return unmount(resolver) })
	return nil
}

// resolverText is what is kept of a file's lines (resolv.conf(5)): those that name servers, searches and options. The
// Go runtime sends its own file cut at each line feed, with comments and an empty last line.
func resolverText(lines []string) (string, error) {
	var out strings.Builder
	for _, line := range lines {
		fields := strings.Fields(line)
		bad := fail(codes.InvalidArgument, "dns line %.80q is no line of resolv.conf", line)
		if len(line) > 1024 || strings.ContainsAny(line, "\n\r\x00") {
			return "", bad
		}
		if len(fields) == 0 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if len(fields) != 2 {
				return "", bad
			}
			if _, err := netip.ParseAddr(fields[1]); err != nil {
				return "", bad
			}
		case "search", "domain", "options":
		default:
			continue
		}
		out.WriteString(strings.Join(fields, " ") + "\n")
	}
	return out.String(), nil
}

// destroySandbox ends the containers and tells the owner of the process.
func (s *Service) destroySandbox(ctx context.Context, _ *kata.DestroySandboxRequest) (*emptypb.Empty, error) {
	err := s.Close(ctx)
	if s.cfg.Shutdown != nil {
		s.cfg.Shutdown()
	}
	if err != nil {
		return nil, fmt.Errorf("destroying the sandbox: %w", err)
	}
	return &emptypb.Empty{}, nil
}

// removeStaleMounts has nothing to remove: no directory of the host is shared.
func (s *Service) removeStaleMounts(context.Context, *kata.RemoveStaleVirtiofsShareMountsRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}
