// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// loopbackUp sets the flag that makes 127.0.0.1 and ::1 work; the kernel adds the addresses.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	up := func() error {
		req, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
			return fmt.Errorf("reading the flags of lo: %w", err)
		}
		req.SetUint16(req.Uint16() | unix.IFF_UP)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
			return fmt.Errorf("setting lo up: %w", err)
		}
		return nil
	}
	return errors.Join(up(), unix.Close(fd))
}

const (
	hostnameFile    = "/etc/hostname"
	defaultHostname = "casemate"
)

// setHostname takes the name that the image carries.
func setHostname(file string) error {
	name := defaultHostname
	text, err := os.ReadFile(file)
	if err == nil {
		name = strings.TrimSpace(string(text))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := checkHostname(name); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("setting host name %q: %w", name, err)
	}
	return nil
}

// checkHostname accepts one label of RFC 1123, section 2.1.
func checkHostname(name string) error {
	ok := len(name) >= 1 && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-'
	for _, c := range []byte(name) {
		ok = ok && (c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	}
	if !ok {
		return fmt.Errorf("%q is no host name", name)
	}
	return nil
}
