// SPDX-License-Identifier: Apache-2.0

//go:build root && testsnp

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/guest"
)

// bareEnv makes this test program a bare guest's first process, short of what would touch the kernel: the measured
// configuration's path.
const bareEnv = "CASEMATE_BARE_TEST_GUEST"

// beBare runs from the configuration on, in the namespaces that it is started in, until SIGTERM.
func beBare() (code int, done bool) {
	file := os.Getenv(bareEnv)
	if file == "" {
		return 0, false
	}
	if err := unix.Mount("run", "/run", "tmpfs", 0, "mode=755"); err != nil {
		fmt.Println(err)
		return 1, true
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	reaper := container.NewReaper(nil)
	go func() { _ = reaper.Run(context.Background()) }()
	console := guest.NewConsole(os.Stdout)
	b := &bare{console, source{config: file, steps: steps{w: consoleSteps{console}}, log: slog.New(consoleLog{console})}, reaper}
	err := b.run(ctx)
	if err != nil || ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "ended", err) // not on the console
		return 1, true
	}
	return 0, true
}

// busyboxLayers is an image of one program.
func busyboxLayers(t *testing.T) v1.Image {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))}, {Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "busybox"}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write(program); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(b.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Entrypoint, config.Config.Env = []string{"/bin/sh", "-c"}, []string{"PATH=/bin"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return mutate.ConfigMediaType(img, types.OCIConfigJSON)
}

// listenIn listens in a network namespace.
func listenIn(t *testing.T, ns, address string) net.Listener {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		h, err := netns.GetFromName(ns)
		if err == nil {
			err = netns.Set(h)
		}
		var l net.Listener
		if err == nil {
			l, err = net.Listen("tcp", address)
		}
		done <- result{l, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.l
}

func serveOn(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}}
	s.Start()
	t.Cleanup(s.Close)
}

func ipRun(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %q: %v: %s", args, err, out)
	}
}

// bareNetwork is a guest's namespace on a cable to a server's at 192.0.2.1, with dnsmasq in it.
func bareNetwork(t *testing.T) (inside, outside string) {
	t.Helper()
	id := fmt.Sprintf("bare%d", os.Getpid())
	inside, outside = id+"-g", id+"-s"
	for _, ns := range []string{inside, outside} {
		ipRun(t, "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	ipRun(t, "-n", outside, "link", "add", "name", "srv0", "type", "veth", "peer", "name", "eth0", "netns", inside)
	ipRun(t, "-n", outside, "addr", "add", "192.0.2.1/24", "dev", "srv0")
	ipRun(t, "-n", outside, "link", "set", "srv0", "up")
	cmd := exec.Command("ip", "netns", "exec", outside, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=srv0", "--user=root",
		"--pid-file=", "--no-ping", "--log-facility=/dev/null", "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), "--dhcp-authoritative", "--dhcp-range=192.0.2.50,192.0.2.50,1h", "--dhcp-option=6,192.0.2.53")
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return inside, outside
}

// TestRootBareGuest goes from a measured configuration by a lease and a pull to a container, which is restarted, and back.
func TestRootBareGuest(t *testing.T) {
	inside, outside := bareNetwork(t)
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	here := httptest.NewServer(store)
	t.Cleanup(here.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(here.URL, "http://")+"/app:1", name.Insecure)
	if err == nil {
		err = remote.Write(ref, busyboxLayers(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	there, owner := listenIn(t, outside, "192.0.2.1:0"), listenIn(t, outside, "192.0.2.1:0")
	serveOn(t, there, store)
	heard := make(chan string, 100)
	serveOn(t, owner, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { heard <- r.URL.Path }))

	dir := t.TempDir()
	chipDir, file := filepath.Join(dir, "chip"), filepath.Join(dir, "casemate.toml")
	if _, err := snptest.Create(chipDir, snptest.Params{TCB: snptest.TCB{Bootloader: 4, SNP: 24, Microcode: 219}}); err != nil {
		t.Fatal(err)
	}
	tell := "/bin/busybox wget -q -O /dev/null http://" + owner.Addr().String()
	text := fmt.Sprintf("[testsnp]\ndir = %q\n\n[network]\nmode = 'dhcp'\n\n[image]\npolicy = '%s'\ninsecure_registries = [%q]\n\n[[container]]\nname = 'app'\nimage = %q\nargs = [%q]\nrestart = 'always'\n",
		chipDir, anything, there.Addr(), there.Addr().String()+"/app:1",
		`trap '`+tell+`/bye; exit 0' TERM; echo canary; `+tell+`/up/$(/bin/busybox grep -c "^nameserver 192.0.2.53$" /etc/resolv.conf); if [ ! -e /once ]; then : > /once; exit 3; fi; while :; do /bin/busybox sleep 0.1; done`)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not by ip netns exec, whose /sys has no control groups.
	cmd := exec.Command("nsenter", "--net=/run/netns/"+inside, "unshare", "--mount", "--propagation", "private", self)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), bareEnv + "=" + file}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var console strings.Builder
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			console.WriteString(lines.Text() + "\n")
		}
	}()
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	hear := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("the container says %q, want %q", got, want)
			}
		case <-read:
			t.Fatalf("the guest ended before the container said %q:\n%s", want, console.String())
		}
	}
	hear("/up/1") // it ends, and is started again
	hear("/up/1")
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hear("/bye")
	<-read
	if err := cmd.Wait(); err != nil {
		t.Errorf("the guest ended with %v", err)
	}
	at := 0
	for _, line := range []string{
		"casemate: weak: testsnp.dir", "casemate: step: network ", "casemate: network: eth0 192.0.2.50/24\n", "casemate: container: app running\n", "casemate: container: app waiting\n",
		"casemate: container: app starting\n", "casemate: container: app running\n", "casemate: container: app stopped\n",
	} {
		next := strings.Index(console.String()[at:], line)
		if next < 0 {
			t.Fatalf("no %q behind %q in\n%s", line, console.String()[:at], console.String())
		}
		at += next + len(line)
	}
	if strings.Contains(console.String(), "canary") || strings.Contains(console.String(), "failed") {
		t.Errorf("the console says\n%s", console.String())
	}
}
