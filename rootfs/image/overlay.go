// SPDX-License-Identifier: Apache-2.0

package image

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Init is who is the first process of a guest that kata's osbuilder makes.
type Init string

// Kata's initrds have the agent, its images as a rule systemd.
const (
	InitAgent   Init = "agent"
	InitSystemd Init = "systemd"
)

// Names in the directory that WriteOverlay fills.
const (
	OverlayAgent = "kata-agent"    // for AGENT_SOURCE_BIN
	OverlayRoot  = "rootfs"        // to be copied over osbuilder's ROOTFS_DIR
	OverlayEnv   = "osbuilder.env" // shell assignments for osbuilder's scripts
)

const (
	unitDir    = "/usr/lib/systemd/system/"
	agentUnit  = "kata-agent.service"
	targetUnit = "kata-containers.target"
)

//go:embed kata-agent.service
var agentService string

//go:embed kata-containers.target
var kataTarget string

// OverlayTree is what a root of kata's osbuilder lacks when AGENT_SOURCE_BIN is
// given: osbuilder then installs no units. The program itself is osbuilder's to
// copy. No pause bundle is needed: casemate is the pause program of its pods.
func (r Recipe) OverlayTree(init Init, extra []Entry) (*Tree, error) {
	t := NewTree()
	list := []Entry{{Path: "/etc/resolv.conf", Kind: File, Perm: filePerm}}
	switch init {
	case InitAgent:
		list = append(list, Entry{Path: initProgram, Kind: Link, Target: r.Guest.Links[initProgram]})
	case InitSystemd:
		list = append(list,
			Entry{Path: "/etc/machine-id", Kind: File, Perm: filePerm},
			Entry{Path: unitDir + agentUnit, Kind: File, Perm: filePerm, Text: agentService},
			Entry{Path: unitDir + targetUnit, Kind: File, Perm: filePerm, Text: kataTarget})
	default:
		return nil, fmt.Errorf("who is init: want agent or systemd, got %q", init)
	}
	return t, t.Add(append(list, extra...)...)
}

// WriteOverlay fills dir, which must not exist, for kata's osbuilder: the program,
// the tree, and the variables that its scripts read.
func WriteOverlay(dir, program string, init Init, t *Tree) error {
	if err := checkProgram(program, false); err != nil {
		return err
	}
	agentInit := map[Init]string{InitAgent: "yes", InitSystemd: "no"}[init]
	lines := []string{
		"# Read this in a shell before osbuilder's rootfs.sh, from the directory it lies in.",
		`export AGENT_SOURCE_BIN="$PWD/` + OverlayAgent + `"`,
		"export AGENT_INIT=" + agentInit,
		"export CONFIDENTIAL_GUEST=yes MEASURED_ROOTFS=yes",
	}
	agent := NewTree()
	if err := agent.Add(
		Entry{Path: "/" + OverlayAgent, Kind: File, Perm: programPerm, HostPath: program},
		Entry{Path: "/" + OverlayEnv, Kind: File, Perm: filePerm, Text: strings.Join(lines, "\n") + "\n"},
	); err != nil {
		return err
	}
	if err := WriteDir(dir, agent); err != nil {
		return err
	}
	return WriteDir(filepath.Join(dir, OverlayRoot), t)
}

// WriteDir writes the tree as a directory, which must not exist. Owners and times are
// those of whoever writes; device nodes, which only root can make and the kernel's
// devtmpfs has, are left out.
func WriteDir(dir string, t *Tree) error {
	// Whatever the umask: the mode of the root goes along with what is copied out of it.
	if err := makeDir(dir); err != nil {
		return err
	}
	for _, e := range t.Entries() {
		if err := e.writeTo(filepath.Join(dir, filepath.FromSlash(e.Path))); err != nil {
			return fmt.Errorf("writing %s: %w", e.Path, err)
		}
	}
	return nil
}

// makeDir never changes the mode of a directory that was there before.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, dirPerm); err != nil {
		return err
	}
	return os.Chmod(dir, dirPerm)
}

func (e Entry) writeTo(name string) error {
	mode := os.FileMode(e.Perm & 0o777)
	if e.Perm > 0o777 {
		mode |= os.ModeSticky
	}
	switch e.Kind {
	case Directory:
		return errors.Join(os.Mkdir(name, mode), os.Chmod(name, mode)) // whatever the umask
	case Link:
		return os.Symlink(e.Target, name)
	case CharDevice:
		return nil
	}
	r, size, err := e.open()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	n, err := io.Copy(f, r)
	if err == nil && n != size {
		err = fmt.Errorf("got %d bytes, want %d", n, size)
	}
	return errors.Join(err, f.Chmod(mode), f.Close(), r.Close())
}
