// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ErrRefused is wrapped by every error that means: the id or the spec asks for
// something that this package does not give. Nothing was made.
var ErrRefused = errors.New("refused")

// Policy is what a spec may ask for beyond the defaults. The zero value is the
// strictest. It comes from measured configuration or an admitted policy, never
// from whoever wrote the spec.
type Policy struct {
	// MountSources are absolute directories beneath which the source of a bind
	// mount may lie. No component below them may be a symbolic link. The source is
	// found by name once more when it is mounted, so while Create runs nobody who
	// is not trusted may rename things there.
	MountSources []string

	// Devices are device nodes that a spec may list besides null, zero, full,
	// random, urandom and tty. Path, Type, Major and Minor must all be equal.
	Devices []specs.LinuxDevice

	// ShareNamespaces are namespaces (pid, ipc, uts) that a container may have in
	// common with this process by leaving them out of its spec. The mount
	// namespace is never shared; network and cgroup namespaces always may be.
	ShareNamespaces []specs.LinuxNamespaceType

	// JoinNamespaces are existing namespaces that a spec may name. Type and Path
	// must both be equal.
	JoinNamespaces []specs.LinuxNamespace

	// Unmasked lets the spec's own masked and read-only paths stand alone, and
	// lets it mount sysfs writable and procfs in other places than /proc. Without
	// it the default paths are always masked and the spec can only add.
	Unmasked bool
}
