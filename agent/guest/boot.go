// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// StepError says which step of [Boot] failed.
type StepError struct {
	Step string // "mounts", "modules", ...: stable
	Err  error
}

func (e *StepError) Error() string { return fmt.Sprintf("boot step %s: %v", e.Step, e.Err) }
func (e *StepError) Unwrap() error { return e.Err }

// Code names the state that the machine is parked in after the failure.
func (e *StepError) Code() string { return "boot-" + e.Step }

// Report says what the boot found.
type Report struct {
	Steps       []Step   // the steps that ran, in order
	Modules     int      // kernel modules loaded
	Absent      []string // optional modules without a device and optional file systems without support
	Controllers []string // control group controllers that containers can be bounded with
	Lockdown    bool     // the kernel has the lockdown LSM, and it is set to confidentiality
}

// Step is one step of the boot's timeline.
type Step struct {
	Name string
	Took time.Duration
	At   time.Duration // when it ended, since the kernel started
}

// NewStep is the step that began at started, by this process's clock, and ends now.
func NewStep(name string, started time.Time) Step {
	return Step{Name: name, Took: time.Since(started), At: uptime()}
}

// String is the step's line on the console.
func (s Step) String() string {
	return s.Name + " " + s.Took.Round(100*time.Microsecond).String() + " at " + s.At.Round(10*time.Millisecond).String()
}

// Boot takes the first process from the kernel's hands to the point where services can start. It must run once, in
// the first process, after [CleanStart], and before anything else has threads with a view of the file system: the
// root moves under their feet. On error the steps so far stay done, the report says which, and the caller parks.
func Boot() (Report, error) {
	var r Report
	for _, s := range []struct {
		name string
		run  func(*Report) error
	}{
		{"root", func(*Report) error { return bareRoot() }},
		{"mounts", mountEarly},
		{"console", func(*Report) error { return attachConsole() }},
		{"modules", insertModules},
		{"filesystems", mountLate},
		{"cgroups", bound},
		{"network", func(*Report) error { return startNetwork() }},
		{"seal", sealKernel},
	} {
		started := time.Now()
		err := s.run(&r)
		r.Steps = append(r.Steps, NewStep(s.name, started))
		if err != nil {
			return r, &StepError{s.name, err}
		}
	}
	return r, nil
}

func bareRoot() error {
	unix.Umask(0o022)
	if err := leaveProc(); err != nil {
		return err
	}
	return settleRoot()
}

func mountEarly(r *Report) error {
	absent, err := mountAll(earlyMounts())
	r.Absent = append(r.Absent, absent...)
	if err != nil {
		return err
	}
	return linkDevices()
}

func insertModules(r *Report) error {
	list, err := readModuleList(ModuleList)
	if err != nil {
		return err
	}
	loaded, absent, err := loadModules(list, unix.FinitModule)
	r.Modules, r.Absent = loaded, append(r.Absent, absent...)
	return err
}

func mountLate(r *Report) error {
	absent, err := mountAll(lateMounts())
	r.Absent = append(r.Absent, absent...)
	return err
}

func bound(r *Report) (err error) {
	r.Controllers, err = delegateControllers(cgroupPath)
	return err
}

func startNetwork() error {
	if err := loopbackUp(); err != nil {
		return err
	}
	return setHostname(hostnameFile)
}

func sealKernel(r *Report) (err error) {
	r.Lockdown, err = seal()
	return err
}
