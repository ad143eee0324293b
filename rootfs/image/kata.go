// SPDX-License-Identifier: Apache-2.0

package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Finding is one thing that kata's runtime, its builders or its agent expect of a
// root file system.
type Finding struct {
	Expected string `json:"expected"`
	// Problem says what is found instead; empty if all is well.
	Problem string `json:"problem,omitempty"`
}

const maxLinks = 40 // followed for one name, as the kernel does

// CheckKata looks in a root file system's directory for what kata 4.1 expects there
// (tools/osbuilder; the runtime's kernel parameters). It lists every expectation,
// met or not. Links are followed within the directory only.
func CheckKata(dir string) ([]Finding, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("no directory")
	}
	if err != nil {
		return nil, fmt.Errorf("checking %s: %w", dir, err)
	}
	c := kataCheck{dir: dir}
	c.expect(Program+" is a static program", c.program(Program))
	init, err := c.resolve("/sbin/init")
	agentIsInit := init == Program
	c.expect("/sbin/init is "+Program+" or systemd", initProblem(init, err))
	if agentIsInit {
		c.expect("/init leads to the agent: the kernel starts it in an initrd", c.leadsTo(initProgram, Program))
	} else {
		c.expect(agentUnit+" starts the agent", c.unit())
		c.expect(targetUnit+" exists: the runtime boots systemd into it", c.anyOf(targetUnit))
		c.expect("/etc/machine-id is a file: systemd binds another over it", c.regular("/etc/machine-id"))
	}
	c.expect("/etc/resolv.conf is a file: the agent binds the pod's over it", c.regular("/etc/resolv.conf"))
	for _, name := range []string{"/proc", "/sys", "/dev", "/run", "/tmp"} {
		c.expect(name+" is a directory: the root is read-only, nothing can make it", c.directory(name))
	}
	foreign, err := c.privileged()
	if err != nil {
		return nil, fmt.Errorf("checking %s: %w", dir, err)
	}
	c.expect("no file is set-uid or set-gid", foreign)
	return c.findings, nil
}

type kataCheck struct {
	dir      string
	findings []Finding
}

func (c *kataCheck) expect(what, problem string) {
	c.findings = append(c.findings, Finding{what, problem})
}

func problem(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "it is missing"
	}
	return err.Error()
}

func initProblem(target string, err error) string {
	if err != nil {
		return problem(err)
	}
	if target != Program && path.Base(target) != "systemd" {
		return "it leads to " + target
	}
	return ""
}

// resolve follows links as a process in the root would, and returns the clean name
// that is left, which exists.
func (c *kataCheck) resolve(name string) (string, error) {
	done, rest := "/", strings.Split(strings.TrimPrefix(name, "/"), "/")
	for links := 0; len(rest) > 0; {
		next := path.Join(done, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(c.host(next))
		if err != nil {
			return "", err
		}
		if info.Mode().Type() != fs.ModeSymlink {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("over %d links", maxLinks)
		}
		target, err := os.Readlink(c.host(next))
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest...)
	}
	return done, nil
}

func (c *kataCheck) host(name string) string { return filepath.Join(c.dir, filepath.FromSlash(name)) }

func (c *kataCheck) leadsTo(name, want string) string {
	target, err := c.resolve(name)
	if err != nil {
		return problem(err)
	}
	if target != want {
		return "it leads to " + target
	}
	return ""
}

// entry finds a name that may be a link itself.
func (c *kataCheck) entry(name string) (fs.FileInfo, string, error) {
	parent, err := c.resolve(path.Dir(name))
	if err != nil {
		return nil, "", err
	}
	host := c.host(path.Join(parent, path.Base(name)))
	info, err := os.Lstat(host)
	return info, host, err
}

func (c *kataCheck) regular(name string) string {
	info, _, err := c.entry(name)
	if err != nil {
		return problem(err)
	}
	if !info.Mode().IsRegular() {
		return "it is no regular file: " + info.Mode().Type().String()
	}
	return ""
}

func (c *kataCheck) directory(name string) string {
	target, err := c.resolve(name)
	if err != nil {
		return problem(err)
	}
	if info, err := os.Lstat(c.host(target)); err != nil || !info.IsDir() {
		return "it is no directory"
	}
	return ""
}

// program asks for an executable that needs no other file to start.
func (c *kataCheck) program(name string) string {
	if p := c.regular(name); p != "" {
		return p
	}
	info, host, err := c.entry(name)
	if err != nil || info.Mode()&0o111 == 0 {
		return "it cannot be executed"
	}
	if err := checkStatic(host); err != nil {
		return err.Error()
	}
	return ""
}

// checkStatic asks for an ELF file that needs no other file to start.
func checkStatic(name string) error {
	f, err := elf.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	} else if err != nil {
		return errors.New("it is no ELF file")
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it needs a dynamic loader")
		}
	}
	return nil
}

// units are where systemd looks, first match first.
func units() []string {
	return []string{"/etc/systemd/system/", unitDir, "/lib/systemd/system/"}
}

func (c *kataCheck) anyOf(unit string) string {
	for _, dir := range units() {
		if _, err := c.resolve(dir + unit); err == nil {
			return ""
		}
	}
	return "it is missing"
}

func (c *kataCheck) unit() string {
	for _, dir := range units() {
		name, err := c.resolve(dir + agentUnit)
		if err != nil {
			continue
		}
		text, err := os.ReadFile(c.host(name))
		if err != nil {
			return problem(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "ExecStart="+Program) {
				return ""
			}
		}
		return "it does not start " + Program
	}
	return "it is missing"
}

// privileged names one file that gives its starter another's rights.
func (c *kataCheck) privileged() (found string, err error) {
	err = filepath.WalkDir(c.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 && found == "" {
			found = strings.TrimPrefix(name, c.dir) + " is"
		}
		return err
	})
	return found, err
}
