// SPDX-License-Identifier: Apache-2.0

package container

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultDevices may be listed by any spec; libcontainer makes them anyway. The
// numbers are those of the kernel's Documentation/admin-guide/devices.txt.
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// ruleDevices have no node in a spec's list but may have a device rule: the
// console and the pseudo-terminals. Minor -1 is any.
var ruleDevices = []specs.LinuxDevice{
	{Type: "c", Major: 5, Minor: 1},
	{Type: "c", Major: 5, Minor: 2},
	{Type: "c", Major: 136, Minor: -1},
}

// checkDevices replaces the device rules by: nothing, then libcontainer's default
// set, then the policy's devices that the spec lists. The rules in the spec are
// only checked not to ask for more, so that a spec which wants the guest's disks
// is refused here and not surprised later.
func checkDevices(s *specs.Spec, policy Policy) error {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range s.Linux.Devices {
		if !slices.ContainsFunc(defaultDevices, sameDevice(d)) && !slices.ContainsFunc(policy.Devices, sameDevice(d)) {
			return refuse("device %q (%s %d:%d)", d.Path, d.Type, d.Major, d.Minor)
		}
		// libcontainer drops its own rule for a default device that the spec lists.
		rules = append(rules, specs.LinuxDeviceCgroup{
			Allow: true, Type: ruleType(d.Type), Major: &d.Major, Minor: &d.Minor, Access: "rwm",
		})
	}
	known := slices.Concat(defaultDevices, ruleDevices, policy.Devices)
	for _, r := range s.Linux.Resources.Devices {
		// Making a node without the right to open it gives nothing.
		if !r.Allow || strings.Trim(r.Access, "m") == "" {
			continue
		}
		if r.Major == nil || !slices.ContainsFunc(known, matchesRule(r)) {
			return refuse("device rule %s %s:%s %s", r.Type, number(r.Major), number(r.Minor), r.Access)
		}
	}
	s.Linux.Resources.Devices = rules
	return nil
}

func sameDevice(d specs.LinuxDevice) func(specs.LinuxDevice) bool {
	return func(k specs.LinuxDevice) bool {
		return k.Path == d.Path && ruleType(k.Type) == ruleType(d.Type) && k.Major == d.Major && k.Minor == d.Minor
	}
}

func matchesRule(r specs.LinuxDeviceCgroup) func(specs.LinuxDevice) bool {
	minor := int64(-1)
	if r.Minor != nil {
		minor = *r.Minor
	}
	return func(k specs.LinuxDevice) bool {
		return ruleType(k.Type) == r.Type && k.Major == *r.Major && (k.Minor == minor || k.Minor == -1)
	}
}

// ruleType maps "u", an unbuffered character device, to the cgroup's "c".
func ruleType(t string) string {
	if t == "u" {
		return "c"
	}
	return t
}

func number(n *int64) string {
	if n == nil {
		return "*"
	}
	return strconv.FormatInt(*n, 10)
}
