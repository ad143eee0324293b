// SPDX-License-Identifier: Apache-2.0

package container

import (
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rlimitNumbers are the resource names of the OCI runtime specification 1.3,
// config.md, "POSIX process".
var rlimitNumbers = map[string]int{
	"RLIMIT_AS":         unix.RLIMIT_AS,
	"RLIMIT_CORE":       unix.RLIMIT_CORE,
	"RLIMIT_CPU":        unix.RLIMIT_CPU,
	"RLIMIT_DATA":       unix.RLIMIT_DATA,
	"RLIMIT_FSIZE":      unix.RLIMIT_FSIZE,
	"RLIMIT_LOCKS":      unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK":    unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE":   unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE":       unix.RLIMIT_NICE,
	"RLIMIT_NOFILE":     unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC":      unix.RLIMIT_NPROC,
	"RLIMIT_RSS":        unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO":     unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME":     unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_STACK":      unix.RLIMIT_STACK,
}

func rlimits(limits []specs.POSIXRlimit) ([]configs.Rlimit, error) {
	var out []configs.Rlimit
	seen := map[string]bool{}
	for _, l := range limits {
		n, ok := rlimitNumbers[l.Type]
		if !ok || seen[l.Type] || l.Soft > l.Hard {
			return nil, refuse("resource limit %q %d:%d", l.Type, l.Soft, l.Hard)
		}
		seen[l.Type] = true
		out = append(out, configs.Rlimit{Type: n, Hard: l.Hard, Soft: l.Soft})
	}
	return out, nil
}

// initProcess turns a hardened spec's process into libcontainer's form. Stdio is
// added by openStreams.
func initProcess(p *specs.Process) (*libcontainer.Process, error) {
	limits, err := rlimits(p.Rlimits)
	if err != nil {
		return nil, err
	}
	out := &libcontainer.Process{
		Init:            true,
		Args:            p.Args,
		Env:             p.Env,
		UID:             int(p.User.UID),
		GID:             int(p.User.GID),
		Cwd:             p.Cwd,
		Label:           p.SelinuxLabel,
		AppArmorProfile: p.ApparmorProfile,
		NoNewPrivileges: &p.NoNewPrivileges,
		Rlimits:         limits,
	}
	for _, gid := range p.User.AdditionalGids {
		out.AdditionalGroups = append(out.AdditionalGroups, int(gid))
	}
	if p.Terminal && p.ConsoleSize != nil {
		out.ConsoleWidth = uint16(min(p.ConsoleSize.Width, 1<<16-1))
		out.ConsoleHeight = uint16(min(p.ConsoleSize.Height, 1<<16-1))
	}
	return out, nil
}
