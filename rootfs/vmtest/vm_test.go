// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/rootfs/kernel"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

const (
	agentPort = 1024
	// busybox is what containers of tests run; Debian's busybox-static.
	busybox = "/bin/busybox"
	// limit of one test: an emulated machine that shares its processors with a build is slow.
	limit = 8 * time.Minute
)

// guestProgram becomes /init: casemate itself, with the services for this test and a signer in place of the TEE built in.
func guestProgram() Program {
	return Program{Package: "./cmd/casemate", Tags: "vmtest testsnp", Cgo: true}
}

// guestTest is a test program that runs inside the guest.
type guestTest struct {
	name string
	Program
	run string // pattern of the tests to run
}

// guestTests are run in this order. Another package joins in by a row here.
func guestTests() []guestTest {
	return []guestTest{
		{"agent", Program{Package: "./agent", Test: true, Tags: "vm"}, "^TestVM"},
		{"guest", Program{Package: "./agent/guest", Test: true, Tags: "vm"}, "^TestVM"},
		{"devmapper", Program{Package: "./storage/devmapper", Test: true, Tags: "vm"}, "^TestVM"},
		{"ext4", Program{Package: "./storage/ext4", Test: true, Tags: "vm"}, "^TestVM"},
		{"storage", Program{Package: "./storage", Test: true, Tags: "vm"}, "^TestVM"},
		{"volume", Program{Package: "./cmd/casemate", Test: true, Tags: "vm sample", Cgo: true}, "^TestVM"},
		// A part of what `make root` runs on the host, here with control groups of version 2 and on an initramfs:
		// an emulated start of a container takes a second.
		{"container", Program{Package: "./agent/container", Test: true, Tags: "root", Cgo: true}, "^(TestLimits|TestOutOfMemoryIsTold)$"},
	}
}

// hostileWords is what a host may put on the command line of any guest. None of it may have an effect: words with
// "=" become the environment of the first process, words behind "--" its arguments.
const hostileWords = "_LIBCONTAINER_INITPIPE=0 _LIBCONTAINER_INITTYPE=standard GODEBUG=inittrace=1 GOTRACEBACK=crash " +
	"OCICRYPT_KEYPROVIDER_CONFIG=/tmp/x SSL_CERT_FILE=/tmp/x LD_PRELOAD=/tmp/x agent.debug_console -- init"

// image is what all machines of this package boot from, made once. Its directory is kept between runs, because the
// linker then has nothing to do when nothing has changed; the lock, held until this process ends, keeps another run
// from replacing the files.
type image struct {
	unlock func()
	kernel *kernel.Kernel
	dir    string
	init   string
	files  []File
	tests  []File // the programs of guestTests
}

var prepare = sync.OnceValues(func() (*image, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	img := &image{dir: filepath.Join(cache, "vmtest")}
	if err := os.MkdirAll(img.dir, 0o755); err != nil {
		return nil, err
	}
	if img.unlock, err = kernel.Lock(ctx, filepath.Join(img.dir, "lock")); err != nil {
		return nil, err
	}
	started := time.Now()
	k, err := kernel.Prepare(ctx, filepath.Join(cache, "kernel"))
	if err != nil {
		return nil, err
	}
	img.kernel = k
	fmt.Printf("vm: kernel %s in %.1fs\n", k.Version, time.Since(started).Seconds())
	started = time.Now()
	img.init = filepath.Join(img.dir, "init")
	if err := Build(ctx, guestProgram(), img.init); err != nil {
		return nil, err
	}
	for _, test := range guestTests() {
		out := filepath.Join(img.dir, test.name+".test")
		if err := Build(ctx, test.Program, out); err != nil {
			return nil, err
		}
		img.tests = append(img.tests, File{Path: "/tests/" + test.name, HostPath: out, Perm: 0o755})
	}
	if _, err := os.Stat(busybox); err != nil {
		return nil, fmt.Errorf("%w (`make setup` installs it)", err)
	}
	img.files = append(img.files, File{Path: busybox, HostPath: busybox, Perm: 0o755})
	fmt.Printf("vm: programs built in %.1fs\n", time.Since(started).Seconds())
	return img, nil
})

// budget is the time of one test, whose machine runs beside another one: each has one processor, and mostly waits for it.
// It begins when the programs are built, and another run has let go of them.
func budget(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	t.Parallel()
	return budgetAlone(t)
}

// budgetAlone is budget for a test during which no other machine of this package runs.
func budgetAlone(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	if _, err := prepare(); err != nil {
		t.Fatal(err)
	}
	return context.WithTimeout(t.Context(), limit)
}

// boot starts a machine with the test programs in it.
func boot(t *testing.T, ctx context.Context, c Config, files ...File) *VM {
	t.Helper()
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	return bootWith(t, ctx, c, append(slices.Clone(img.files), files...)...)
}

// bootWith starts a machine, prints its console if the test fails, and ends it with the test.
func bootWith(t *testing.T, ctx context.Context, c Config, files ...File) *VM {
	t.Helper()
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	c.Kernel, c.Initrd = cmp.Or(c.Kernel, img.kernel.Image), filepath.Join(t.TempDir(), "initrd")
	if c.TimeLimit == 0 {
		c.TimeLimit = limit
	}
	if err := WriteImage(ctx, c.Initrd, img.kernel, img.init, files); err != nil {
		t.Fatal(err)
	}
	vm, err := Boot(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Stop(); err != nil {
			t.Errorf("stopping the machine: %v", err)
		}
		fmt.Printf("vm: %s took %.1fs, its emulator %.1fs of processor time\n", t.Name(), vm.Age().Seconds(), vm.CPU().Seconds())
		if t.Failed() {
			t.Logf("console:\n%s", vm.Console)
		}
	})
	return vm
}

// check runs one check and prints its line.
func check(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	started := time.Now()
	if t.Run(name, f) {
		fmt.Printf("vm: %s ok (%.1fs)\n", name, time.Since(started).Seconds())
	} else {
		fmt.Printf("vm: %s FAILED\n", name)
	}
}

func agentClient(t *testing.T, ctx context.Context, vm *VM, opts ...ttrpc.ClientOpts) *ttrpc.Client {
	t.Helper()
	conn, err := vm.Dial(ctx, agentPort)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn, opts...)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func health(ctx context.Context, c *ttrpc.Client) error {
	r, err := kata.NewTTRPCHealthClient(c).Check(ctx, &kata.CheckRequest{})
	if err == nil && r.Status != kata.HealthCheckResponse_SERVING {
		err = fmt.Errorf("status %v", r.Status)
	}
	return err
}

// TestVM boots one machine and checks it.
func TestVM(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	var disks []string
	for i, size := range []int64{16 << 20, 16 << 20, 64 << 20} {
		disk, err := TempDisk(t.TempDir(), fmt.Sprint(i), size)
		if err != nil {
			t.Fatal(err)
		}
		disks = append(disks, disk)
	}
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	vm := boot(t, ctx, Config{Disks: disks, Append: hostileWords, MemoryMiB: 512}, append(referenceFiles(t), img.tests...)...)

	check(t, "boot", func(t *testing.T) {
		if _, err := vm.Console.Expect(ctx, "casemate: ready: "); err != nil {
			t.Fatal(err)
		}
	})
	if t.Failed() {
		return
	}
	check(t, "console", func(t *testing.T) { ownConsole(t, vm) })
	check(t, "cgroup2", func(t *testing.T) {
		line, err := vm.Console.Expect(ctx, "casemate: ready: ")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
			if !regexp.MustCompile(`controllers .*\b` + name + `\b`).MatchString(line) {
				t.Errorf("no controller %s: %s", name, line)
			}
		}
	})
	client := agentClient(t, ctx, vm)
	check(t, "health", func(t *testing.T) {
		if err := health(ctx, client); err != nil {
			t.Error(err)
		}
	})
	check(t, "refusal", func(t *testing.T) {
		err := client.Call(ctx, "grpc.AgentService", "CreateSandbox", &kata.CreateSandboxRequest{SandboxId: "s"}, &emptypb.Empty{})
		want := "CreateSandboxRequest is blocked by policy: door-closed: initdata and policy have not been accepted yet"
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != want {
			t.Errorf("got %v", err)
		}
	})
	check(t, "parallel", func(t *testing.T) { parallel(t, ctx, vm, client) })
	for _, test := range guestTests() {
		inGuest(t, ctx, vm, test)
	}
	check(t, "poweroff", func(t *testing.T) {
		if _, err := vm.Run(ctx, remote.Request{Power: "off"}, os.Stdout); err != nil {
			t.Error(err)
		}
		if err := vm.Wait(ctx); err != nil {
			t.Error(err)
		}
	})
}

// ownConsole: nothing but our own lines reaches the console once the first process runs.
func ownConsole(t *testing.T, vm *VM) {
	before, text, ok := strings.Cut(vm.Console.String(), "casemate: ")
	if !ok || strings.Contains(before, " ms clock") { // what GODEBUG=inittrace=1 makes the Go runtime print
		t.Fatal("the first process obeyed the kernel command line")
	}
	for line := range strings.Lines("casemate: " + text) {
		if !strings.HasPrefix(line, "casemate: ") && !strings.HasPrefix(line, "[") { // the kernel's begin with a time
			t.Errorf("line %q", line)
		}
	}
	// No such hardware here: the boot goes on, and says so.
	for _, name := range []string{"sev_guest", "tdx_guest"} {
		if !strings.Contains(text, "casemate: absent: "+name+"\n") {
			t.Errorf("module %s is not reported as absent", name)
		}
	}
}

// parallel dials many connections at once and uses them; a port without a listener is refused.
func parallel(t *testing.T, ctx context.Context, vm *VM, shared *ttrpc.Client) {
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			conn, err := vm.DialOnce(ctx, agentPort)
			if err != nil {
				t.Error(err)
				return
			}
			c := ttrpc.NewClient(conn)
			defer c.Close()
			for range 5 {
				if err := health(ctx, c); err != nil {
					t.Error(err)
				}
				if err := health(ctx, shared); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if conn, err := vm.DialOnce(ctx, 9); err == nil {
		_ = conn.Close()
		t.Error("port 9 answers")
	}
}

// inGuest runs a test program inside the guest and prints a line for each of its tests.
func inGuest(t *testing.T, ctx context.Context, vm *VM, test guestTest) {
	check(t, test.name, func(t *testing.T) {
		var out bytes.Buffer
		request := remote.Request{Run: test.name, Args: []string{"-test.v", "-test.run", test.run}, Seconds: int(limit.Seconds())}
		code, err := vm.Run(ctx, request, &out)
		results := regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+) \((\S+)s\)`).FindAllStringSubmatch(out.String(), -1)
		for _, r := range results {
			if r[1] == "PASS" {
				fmt.Printf("vm: %s/%s ok (%ss)\n", test.name, r[2], r[3])
			}
		}
		if err != nil || code != 0 || len(results) == 0 || strings.Contains(out.String(), "--- SKIP") {
			t.Errorf("exit status %d, %v, %d tests:\n%s", code, err, len(results), out.Bytes())
		}
	})
}

// TestVMParked boots an image that names a module it does not have, behind those of vsock: the guest does not die,
// says its state on the console and in every refusal, and stays healthy.
func TestVMParked(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	_, list, err := imageModules(ctx, img.kernel)
	if err != nil {
		t.Fatal(err)
	}
	vm := boot(t, ctx, Config{}, File{Path: moduleList, Text: list + "/lib/modules/missing.ko\n", Perm: 0o644})
	check(t, "parked", func(t *testing.T) {
		if _, err := vm.Console.Expect(ctx, "casemate: parked: boot-modules: the guest could not be set up"); err != nil {
			t.Fatal(err)
		}
		client := agentClient(t, ctx, vm)
		if err := health(ctx, client); err != nil {
			t.Error(err)
		}
		err := client.Call(ctx, "grpc.AgentService", "CreateSandbox", &kata.CreateSandboxRequest{}, &emptypb.Empty{})
		want := "CreateSandboxRequest is blocked by policy: boot-modules: the guest could not be set up"
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != want {
			t.Errorf("got %v", err)
		}
	})
}
