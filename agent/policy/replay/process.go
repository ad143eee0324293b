// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"slices"

	"github.com/casemate/casemate/agent/api/kata"
)

// capabilities are the engine's default set, the same for each kind that it sets.
func (s Stack) capabilities() *kata.LinuxCapabilities {
	set := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	if s.Engine == CRIO {
		set = []string{
			"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_KILL",
		}
	}
	return &kata.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set}
}

// process is a container's first one.
func (s Stack) process(c *container) *kata.Process {
	p := &kata.Process{
		User: &kata.User{UID: c.uid, GID: c.gid, AdditionalGids: []uint32{c.gid}}, Args: c.args, Cwd: c.cwd,
		Capabilities: s.capabilities(), NoNewPrivileges: c.noNew, OOMScoreAdj: 1000,
	}
	p.Env = append(slices.Clone(c.env), "HOSTNAME="+podName)
	for name, value := range map[string]string{
		"SERVICE_HOST": "10.96.0.1", "SERVICE_PORT": "443", "SERVICE_PORT_HTTPS": "443", "PORT": "tcp://10.96.0.1:443",
		"PORT_443_TCP": "tcp://10.96.0.1:443", "PORT_443_TCP_PROTO": "tcp", "PORT_443_TCP_PORT": "443", "PORT_443_TCP_ADDR": "10.96.0.1",
	} {
		p.Env = append(p.Env, "KUBERNETES_"+name+"="+value)
	}
	slices.Sort(p.Env[len(c.env):]) // an engine has an order of its own: here always the same
	if s.Engine != CRIO {
		p.ApparmorProfile = "cri-containerd.apparmor.d"
	}
	if s.Engine == Containerd1 {
		p.Rlimits = []*kata.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}}
	}
	return p
}

func (s Stack) pauseProcess() *kata.Process {
	return &kata.Process{
		User: &kata.User{UID: 65535, GID: 65535, AdditionalGids: []uint32{65535}}, Args: []string{"/pause"}, Env: []string{defaultPath}, Cwd: "/",
		Capabilities: s.capabilities(), NoNewPrivileges: true, OOMScoreAdj: -998,
	}
}

// exec is a probe's or hook's process. The Go runtime sends five of its fields, the Rust one all.
func (s Stack) exec(c *container, args ...string) *kata.Process {
	p := &kata.Process{
		User: &kata.User{UID: c.uid, GID: c.gid, AdditionalGids: []uint32{c.gid}}, Args: args, Env: s.process(c).Env, Cwd: c.cwd,
	}
	if s.Runtime == RustRuntime {
		p.Capabilities, p.NoNewPrivileges, p.ApparmorProfile = s.capabilities(), c.noNew, s.process(c).ApparmorProfile
		return p
	}
	p.Capabilities = &kata.LinuxCapabilities{}
	return p
}
