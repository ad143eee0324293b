// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

const emptyDir = "/run/kata-containers/sandbox/ephemeral/cache"

func withVolume(r *kata.CreateContainerRequest, change ...func(*kata.Storage)) *kata.CreateContainerRequest {
	st := &kata.Storage{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: emptyDir, Options: []string{"size=1048576", "fsgid=500"}}
	for _, f := range change {
		f(st)
	}
	r.Storages = append(r.Storages, st)
	r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: st.MountPoint, Destination: "/data", Type: "bind", Options: []string{"rbind", "rprivate", "rw"}})
	return r
}

// TestRootEmptyDir: an init container writes what the next one reads; the size is
// enforced in the guest; the last container's end takes the volume away.
func TestRootEmptyDir(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.start(t, pauseRequest(sandboxID))
	g.start(t, withVolume(request("init", "sh", "-c", "echo from init > /data/f; head -c 2000000 /dev/zero > /data/big || echo full")))
	if got := g.output(t, "init"); got != "full\n" {
		t.Errorf("a volume of 1 MiB took 2 MB: got %q", got)
	}
	g.start(t, withVolume(request("main", "sh", "-c", "cat /data/f; ls -ldn /data; read x")))
	use, err := g.GetVolumeStats(within(t), &kata.VolumeStatsRequest{VolumeGuestPath: emptyDir})
	if err != nil || use.Usage[0].Total != 1<<20 || use.Usage[0].Used == 0 {
		t.Errorf("how full the volume is: %v, %v", use, err)
	}
	wantCode(t, "how full the guest is", errOf(g.GetVolumeStats(within(t), &kata.VolumeStatsRequest{VolumeGuestPath: "/"})), codes.NotFound, "no volume")
	g.remove(t, "init")
	if r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "main", Len: 1000}); err != nil || !strings.HasPrefix(string(r.Data), "from init\n") {
		t.Errorf("got %q, %v", r.GetData(), err)
	}
	info, err := os.Stat(emptyDir)
	if err != nil || info.Mode()&os.ModeSetgid == 0 {
		t.Errorf("the volume's group: %v, %v", info, err)
	}
	g.remove(t, "main")
	if _, err := os.Stat(emptyDir); !os.IsNotExist(err) {
		t.Errorf("the volume outlives its containers: %v", err)
	}
	// A directory instead of a file system of its own.
	local := func(st *kata.Storage) { st.Driver, st.Fstype, st.Options = "local", "local", []string{"mode=0777"} }
	g.start(t, withVolume(request("local", "sh", "-c", "echo x > /data/x && echo ok"), local))
	var st unix.Statfs_t
	if err := unix.Statfs(emptyDir, &st); err != nil || st.Flags&unix.ST_NOSUID == 0 || st.Flags&unix.ST_NODEV == 0 {
		t.Errorf("a directory of the pod: flags %#x, %v: want nosuid and nodev", st.Flags, err)
	}
	if got := g.output(t, "local"); got != "ok\n" {
		t.Errorf("local volume: got %q", got)
	}
	g.remove(t, "local")
}

// TestRootEncryptedEmptyDir: kata's encrypted emptyDir is a file system on all of a disk, shared by its containers and
// given up behind the last of them; a disk that is to be had in any other way is refused.
func TestRootEncryptedEmptyDir(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.start(t, pauseRequest(sandboxID))
	const at = "/run/kata-containers/sandbox/storage/L2Rldi92ZHo="
	encrypted := func(change func(*kata.Storage)) func(*kata.Storage) {
		return func(st *kata.Storage) {
			*st = kata.Storage{Driver: "mmioblk", Source: "/dev/vdz", Fstype: "ext4", MountPoint: at, Shared: true,
				DriverOptions: []string{"encryption_key=ephemeral", "create_filesystem"}, FsGroup: &kata.FSGroup{GroupId: 500}}
			if change != nil {
				change(st)
			}
		}
	}
	for name, tt := range map[string]struct {
		change func(*kata.Storage)
		want   codes.Code
	}{
		"not encrypted":       {func(st *kata.Storage) { st.DriverOptions = []string{"create_filesystem"} }, codes.PermissionDenied},
		"not new":             {func(st *kata.Storage) { st.DriverOptions = st.DriverOptions[:1] }, codes.PermissionDenied},
		"another key":         {func(st *kata.Storage) { st.DriverOptions[0] = "encryption_key=kbs:///a/b/c" }, codes.PermissionDenied},
		"no integrity":        {func(st *kata.Storage) { st.DriverOptions = append(st.DriverOptions, "integrity=false") }, codes.PermissionDenied},
		"another file system": {func(st *kata.Storage) { st.Fstype = "xfs" }, codes.PermissionDenied},
		"a path for a disk":   {func(st *kata.Storage) { st.Source = "/dev/mapper/control" }, codes.PermissionDenied},
		"a place elsewhere":   {func(st *kata.Storage) { st.Driver, st.Source = "blk", "02/../.." }, codes.PermissionDenied},
		"a name for a place":  {func(st *kata.Storage) { st.Driver = "blk-ccw" }, codes.PermissionDenied},
		"a SCSI disk":         {func(st *kata.Storage) { st.Driver = "scsi" }, codes.PermissionDenied},
		"outside of the pod":  {func(st *kata.Storage) { st.MountPoint = "/etc" }, codes.PermissionDenied},
		"another disk":        {func(st *kata.Storage) { st.Source = "/dev/vdy" }, codes.FailedPrecondition},
	} {
		wantCode(t, name, errOf(g.CreateContainer(within(t), withVolume(request("bad", "true"), encrypted(tt.change)))), tt.want, "")
		if _, err := os.Stat(at); !os.IsNotExist(err) {
			t.Errorf("%s: a directory stayed: %v", name, err)
		}
	}
	g.start(t, withVolume(request("one", "sh", "-c", "head -c 2000000 /dev/zero > /data/big || echo full; stat -c '%g %a' /data"), encrypted(nil)))
	if got := g.output(t, "one"); got != "full\n500 2777\n" {
		t.Errorf("got %q", got)
	}
	g.start(t, withVolume(request("two", "sh", "-c", "stat -c %s /data/big; read x"), encrypted(nil)))
	if r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "two", Len: 1000}); err != nil || string(r.Data) != "1048576\n" {
		t.Errorf("got %q, %v", r.GetData(), err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil || st.Flags&unix.ST_NOSUID == 0 || st.Flags&unix.ST_NODEV == 0 {
		t.Errorf("flags %#x, %v", st.Flags, err)
	}
	g.remove(t, "one")
	g.remove(t, "two")
	if _, err := os.Stat(at); !os.IsNotExist(err) {
		t.Errorf("the volume outlives its containers: %v", err)
	}
}

// TestRootSizedEmptyDir: a directory with a size is a file system of that size, with the owner, mode and flags of any
// other, which ends with its last container; its containers share it.
func TestRootSizedEmptyDir(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.start(t, pauseRequest(sandboxID))
	sized := func(st *kata.Storage) {
		st.Driver, st.Fstype, st.Options = "local", "local", []string{"mode=0770", "size=1048576", "noexec"}
		st.FsGroup = &kata.FSGroup{GroupId: 500}
	}
	g.start(t, withVolume(request("one", "sh", "-c", "head -c 2000000 /dev/zero > /data/big || echo full; stat -c '%g %a' /data"), sized))
	if got := g.output(t, "one"); got != "full\n500 2770\n" {
		t.Errorf("got %q", got)
	}
	g.start(t, withVolume(request("two", "sh", "-c", "stat -c %s /data/big; read x"), sized))
	if r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "two", Len: 1000}); err != nil || string(r.Data) != "1048576\n" {
		t.Errorf("got %q, %v", r.GetData(), err)
	}
	var st unix.Statfs_t
	const want = unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
	if err := unix.Statfs(emptyDir, &st); err != nil || st.Flags&want != want {
		t.Errorf("flags %#x, %v", st.Flags, err)
	}
	g.remove(t, "one")
	g.remove(t, "two")
	if _, err := os.Stat(emptyDir); !os.IsNotExist(err) {
		t.Errorf("the volume outlives its containers: %v", err)
	}
}

func TestRootVolumesRefused(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	if err := os.MkdirAll("/run/kata-containers/sandbox/ephemeral", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", "/run/kata-containers/sandbox/ephemeral/planted"); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*kata.Storage)
		code   codes.Code
	}{
		"over the guest":        {func(st *kata.Storage) { st.MountPoint = "/etc" }, codes.PermissionDenied},
		"by dots":               {func(st *kata.Storage) { st.MountPoint = "/run/kata-containers/sandbox/../../../etc" }, codes.PermissionDenied},
		"over shared memory":    {func(st *kata.Storage) { st.MountPoint = "/run/kata-containers/sandbox/shm" }, codes.PermissionDenied},
		"over the pod itself":   {func(st *kata.Storage) { st.MountPoint = "/run/kata-containers/sandbox" }, codes.PermissionDenied},
		"over another's rootfs": {func(st *kata.Storage) { st.MountPoint = "/run/kata-containers/app/rootfs" }, codes.PermissionDenied},
		"through a link":        {func(st *kata.Storage) { st.MountPoint = "/run/kata-containers/sandbox/ephemeral/planted/x" }, codes.FailedPrecondition},
		"on a link":             {func(st *kata.Storage) { st.MountPoint = "/run/kata-containers/sandbox/ephemeral/planted" }, codes.FailedPrecondition},
		"ext4 of the host":      {func(st *kata.Storage) { st.Fstype = "ext4" }, codes.PermissionDenied},
		"huge pages":            {func(st *kata.Storage) { st.Fstype = "hugetlbfs" }, codes.PermissionDenied},
		"setuid option":         {func(st *kata.Storage) { st.Options = []string{"suid"} }, codes.InvalidArgument},
		"devices":               {func(st *kata.Storage) { st.Options = []string{"dev"} }, codes.InvalidArgument},
		"huge":                  {func(st *kata.Storage) { st.Options = []string{"size=1000000000000000"} }, codes.InvalidArgument},
		"no room for its size":  {func(st *kata.Storage) { st.Driver, st.Options = "local", []string{"size=2000000000"} }, codes.ResourceExhausted},
		"mode with setuid":      {func(st *kata.Storage) { st.Options = []string{"mode=4777"} }, codes.InvalidArgument},
		"option smuggle":        {func(st *kata.Storage) { st.Options = []string{"size=1,uid=0"} }, codes.InvalidArgument},
		"driver option":         {func(st *kata.Storage) { st.DriverOptions = []string{"encryption_key=ephemeral"} }, codes.PermissionDenied},
	} {
		wantCode(t, name, errOf(g.CreateContainer(within(t), withVolume(request("app", "true"), tt.change))), tt.code, "")
	}
	g.start(t, withVolume(request("one", "sleep", "100")))
	wantCode(t, "the same with another size", errOf(g.CreateContainer(within(t), withVolume(request("two", "true"), func(st *kata.Storage) { st.Options = []string{"size=4096"} }))), codes.FailedPrecondition, "other options")
	g.remove(t, "one")
}

// TestRootSeccomp: a profile in the form of RuntimeDefault is enforced.
func TestRootSeccomp(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	r := request("filtered", "sh", "-c", "mkdir /tmp/x 2>/dev/null || echo refused; echo runs")
	r.OCI.Linux.Seccomp = &kata.LinuxSeccomp{
		DefaultAction: "SCMP_ACT_ALLOW", Architectures: []string{"SCMP_ARCH_X86_64"},
		Syscalls: []*kata.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: "SCMP_ACT_ERRNO", ErrnoRet: &kata.LinuxSyscall_Errnoret{Errnoret: 1}}},
	}
	g.start(t, r)
	if got := g.output(t, "filtered"); got != "refused\nruns\n" {
		t.Errorf("got %q", got)
	}
	g.remove(t, "filtered")
}
