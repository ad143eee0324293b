// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// resolverFile is bound over resolverPlace, which lies on a root that nobody writes to. Programs of the guest read
	// it there, and copies of it are given to containers.
	resolverFile  = "/run/casemate/resolv.conf"
	resolverPlace = "/etc/resolv.conf"
)

// resolver is the guest's resolv.conf.
type resolver struct {
	file, place string
	bound       bool
}

// set writes the name servers. The file stays the same one, so that the mount goes on showing it.
func (r *resolver) set(servers []netip.Addr) error {
	text := resolverText(servers)
	if err := os.MkdirAll(filepath.Dir(r.file), 0o700); err != nil {
		return fmt.Errorf("writing name servers: %w", err)
	}
	f, err := os.OpenFile(r.file, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return fmt.Errorf("writing name servers: %w", err)
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing name servers: %w", err)
	}
	if r.bound {
		return nil
	}
	if err := unix.Mount(r.file, r.place, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s: %w", r.place, err)
	}
	r.bound = true
	return nil
}

// resolverText holds addresses alone. Without any it has a comment: an empty file means the server on loopback
// (resolv.conf(5)), which is the workload's.
func resolverText(servers []netip.Addr) string {
	if len(servers) == 0 {
		return "# no name servers\n"
	}
	var b strings.Builder
	for _, s := range servers {
		b.WriteString("nameserver " + s.String() + "\n")
	}
	return b.String()
}
