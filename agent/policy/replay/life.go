// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
)

// Step is a request with what has to be answered to it at its place in a sequence.
type Step struct {
	Name string
	Msg  proto.Message
	// Tenant says whether a policy made for the pod allows it, BuiltIn whether the built-in policy does.
	Tenant, BuiltIn bool
}

// Request is the name of the request's message, which is its entry point in policies.
func (s Step) Request() string { return string(s.Msg.ProtoReflect().Descriptor().Name()) }

// sequence gathers steps.
type sequence struct{ steps []Step }

func (q *sequence) both(name string, m proto.Message)    { q.add(name, m, true, true) }
func (q *sequence) tenant(name string, m proto.Message)  { q.add(name, m, true, false) }
func (q *sequence) neither(name string, m proto.Message) { q.add(name, m, false, false) }

func (q *sequence) add(name string, m proto.Message, tenant, builtIn bool) {
	q.steps = append(q.steps, Step{name, m, tenant, builtIn})
}

// Life is the pod's life in the order in which the runtime sends it.
func (s Stack) Life() []Step {
	q := new(sequence)
	s.open(q)
	for i := range containers() {
		s.copies(q, &containers()[i])
		s.run(q, &containers()[i])
	}
	s.serving(q)
	for i := range containers() {
		s.end(q, s.ID(containers()[i].name))
	}
	s.end(q, s.SandboxID())
	if s.Runtime == GoRuntime {
		q.both("end of the sandbox", &kata.DestroySandboxRequest{})
	}
	return q.steps
}

// open brings the sandbox up to its running pause container.
func (s Stack) open(q *sequence) {
	iface, routes, neighbours := s.network()
	q.both("interface", iface)
	if s.Runtime == RustRuntime {
		q.both("neighbours", neighbours)
		q.both("routes", routes)
	} else {
		q.both("routes", routes)
		q.both("neighbours", neighbours)
	}
	q.both("sandbox", s.sandbox())
	q.both("guest details", &kata.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true})
	id := s.SandboxID()
	q.both("resolv.conf of pause", s.file(s.Copied(id, "/etc/resolv.conf"), "nameserver 10.96.0.10\n"))
	q.both("pause", s.pause())
	q.both("processors", &kata.OnlineCPUMemRequest{CpuOnly: true})
	q.both("start of pause", &kata.StartContainerRequest{ContainerId: id})
	q.both("out of memory", &kata.GetOOMEventRequest{})
}

// copies are the files that a container finds mounted.
func (s Stack) copies(q *sequence, c *container) {
	id := s.ID(c.name)
	for _, at := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"} {
		q.both(c.name+": copy of "+at, s.file(s.Copied(id, at), at))
	}
	for _, m := range s.projected(s.Copied(id, serviceAccount), "..2026_03_04_05_06_07.1234567", "token", "ey") {
		q.both(c.name+": copy of its token", m)
	}
	if c.settings {
		for _, m := range s.projected(s.Copied(id, "/etc/app"), "..2026_03_04_05_06_07.7654321", "app.conf", "port=80") {
			q.both(c.name+": copy of its settings", m)
		}
		// Kubelet resolves the links of the volume, so one file by a subPath is no tree.
		q.both(c.name+": copy of one of its settings", s.file(s.Copied(id, OneFile), "port=80"))
	}
}

// run creates and starts a container and reads from it.
func (s Stack) run(q *sequence, c *container) {
	id := s.ID(c.name)
	// The built-in policy is asked before the image is there, so it lets through what the image then decides about;
	// a volume it refuses.
	q.add(c.name+": create", s.create(c, ""), true, !c.scratch)
	start := &kata.StartContainerRequest{ContainerId: id}
	q.both(c.name+": start", start)
	q.both(c.name+": output", &kata.ReadStreamRequest{ContainerId: id, ExecId: s.execID(id), Len: 32 << 10})
	q.both(c.name+": statistics", &kata.StatsContainerRequest{ContainerId: id})
}

// serving is what happens while the pod runs.
func (s Stack) serving(q *sequence) {
	c := &containers()[1]
	id := s.ID(c.name)
	for _, args := range [][]string{{"/app", "--check"}, {"/app", "--stop"}} {
		q.tenant("app: "+args[1], &kata.ExecProcessRequest{ContainerId: id, ExecId: s.ID("exec" + args[1]), Process: s.exec(c, args...)})
	}
	for _, m := range s.projected(s.Copied(id, serviceAccount), "..2026_03_04_06_06_07.7777777", "token", "new")[1:4] {
		q.both("app: its token renewed", m)
	}
	q.tenant("app: limits changed in place", &kata.UpdateContainerRequest{
		ContainerId: id, Resources: &kata.LinuxResources{CPU: &kata.LinuxCPU{Shares: 512, Quota: 100000, Period: 100000}},
	})
	q.tenant("app: termination message", &kata.GetDiagnosticDataRequest{LogType: "termination_log", ContainerId: id})
}

// end kills, collects and removes a container.
func (s Stack) end(q *sequence, id string) {
	q.both("SIGTERM", &kata.SignalProcessRequest{ContainerId: id, ExecId: s.execID(id), Signal: 15})
	q.both("SIGKILL to all", &kata.SignalProcessRequest{ContainerId: id, Signal: 9})
	q.both("wait", &kata.WaitProcessRequest{ContainerId: id, ExecId: s.execID(id)})
	q.both("remove", &kata.RemoveContainerRequest{ContainerId: id})
	if s.Runtime == GoRuntime {
		q.both("stale mounts", &kata.RemoveStaleVirtiofsShareMountsRequest{})
	}
}
