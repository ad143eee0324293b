// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	terminationLog        = "termination_log"
	terminationAnnotation = "io.kubernetes.container.terminationMessagePath"
	// maxTermination is what Kubernetes keeps of a termination message.
	maxTermination = 4096
)

// diagnosticData returns a container's termination message: the file that the
// container found mounted at the place its annotation names, and only if that file
// is one of those that came by copying.
func (s *Service) diagnosticData(_ context.Context, req *kata.GetDiagnosticDataRequest) (*kata.GetDiagnosticDataResponse, error) {
	e, err := s.find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if req.GetLogType() != terminationLog {
		return nil, fail(codes.InvalidArgument, "diagnostic data of type %s is not served", quoted(req.GetLogType()))
	}
	if e.termination == "" {
		return &kata.GetDiagnosticDataResponse{}, nil
	}
	text, err := s.readShared(e.termination, maxTermination)
	if err != nil {
		return nil, err
	}
	return &kata.GetDiagnosticDataResponse{Data: strings.ToValidUTF8(string(text), "?")}, nil
}

// terminationFile finds the source of the mount that holds the message, "" for none. Only what is bound was looked at
// (checkSources): for other mounts a source is any text, also the name of a file in a volume.
func terminationFile(oci *kata.Spec) string {
	at := oci.GetAnnotations()[terminationAnnotation]
	if at == "" {
		return ""
	}
	for _, m := range oci.GetMounts() {
		bound := slices.Contains(m.GetOptions(), "bind") || slices.Contains(m.GetOptions(), "rbind")
		if m.GetDestination() == at && bound {
			return m.GetSource()
		}
	}
	return ""
}

// readShared reads at most limit bytes of a regular file among the copies.
func (s *Service) readShared(path string, limit int64) ([]byte, error) {
	root := s.shared()
	rel, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsLocal(rel) {
		return nil, fail(codes.PermissionDenied, "GetDiagnosticDataRequest is blocked by policy: path: only copied files are read")
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reading a copied file: %w", err)
	}
	defer unix.Close(dir)
	f, err := openRegular(dir, rel, unix.O_RDONLY)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) || errors.Is(err, errNotRegular) {
		return nil, fail(codes.NotFound, "there is no such copied file")
	}
	if err != nil {
		return nil, fmt.Errorf("reading a copied file: %w", err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
