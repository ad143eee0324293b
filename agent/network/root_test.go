// SPDX-License-Identifier: Apache-2.0

//go:build root

package network

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// guestEnv makes the test program the guest's side: a configuration as JSON.
const guestEnv = "CASEMATE_NETWORK_TEST_GUEST"

const (
	serverLink, guestLink = "srv0", "eth0"
	guestMAC              = "52:54:00:c0:ff:ee"
	waitLimit             = 40 * time.Second
)

// guestPart is what the guest's side is told: a configuration, and where its resolv.conf is.
type guestPart struct {
	Conf        Config
	File, Place string
}

// guestState is what it says when it is asked.
type guestState struct {
	Addresses, Routes []string
	Six               []string
	MTU               int
	Resolver          string
}

func TestMain(m *testing.M) {
	if text := os.Getenv(guestEnv); text != "" {
		if err := beGuest([]byte(text)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beGuest sets the network of its namespace up, prints a line for each event, and its state for each line that comes in.
func beGuest(text []byte) error {
	var g guestPart
	if err := json.Unmarshal(text, &g); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k, err := up(ctx, g.Conf, func(w Wait) { fmt.Println("wait", w.Code, w.Err) }, resolver{file: g.File, place: g.Place})
	if err != nil {
		return err
	}
	fmt.Println("up", k.Address())
	done := make(chan struct{})
	go func() { defer close(done); k.Keep(ctx) }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		line, err := json.Marshal(look(g.Place))
		if err != nil {
			return err
		}
		fmt.Printf("state %s\n", line)
	}
	cancel()
	<-done
	return nil
}

func look(place string) (s guestState) {
	link, err := netlink.LinkByName(guestLink)
	if err != nil {
		return s
	}
	s.MTU = link.Attrs().MTU
	four, _ := netlink.AddrList(link, netlink.FAMILY_V4)
	for _, a := range four {
		s.Addresses = append(s.Addresses, a.IPNet.String())
	}
	six, _ := netlink.AddrList(link, netlink.FAMILY_V6)
	for _, a := range six {
		s.Six = append(s.Six, a.IPNet.String())
	}
	routes, _ := netlink.RouteList(link, netlink.FAMILY_V4)
	for _, r := range routes {
		s.Routes = append(s.Routes, fmt.Sprintf("%v via %v", r.Dst, r.Gw))
	}
	raw, _ := os.ReadFile(place)
	s.Resolver = string(raw)
	return s
}

// wire is a guest's namespace and a server's, with a cable between them.
type wire struct {
	guest, server string
	dir           string
}

func command(t *testing.T, words ...string) {
	t.Helper()
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", words, err, out)
	}
}

func newWire(t *testing.T) *wire {
	t.Helper()
	id := fmt.Sprintf("cm%d-%s", os.Getpid(), strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(t.Name(), "TestRoot")), "/", "-"))
	w := &wire{guest: id + "-g", server: id + "-s", dir: t.TempDir()}
	for _, ns := range []string{w.guest, w.server} {
		command(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	command(t, "ip", "-n", w.server, "link", "set", "lo", "up")
	return w
}

// plug puts the cable in. The server has 192.0.2.1/24.
func (w *wire) plug(t *testing.T) {
	t.Helper()
	command(t, "ip", "-n", w.server, "link", "add", "name", serverLink, "type", "veth", "peer", "name", guestLink, "address", guestMAC, "netns", w.guest)
	command(t, "ip", "-n", w.server, "addr", "add", "192.0.2.1/24", "dev", serverLink)
	command(t, "ip", "-n", w.server, "link", "set", serverLink, "up")
}

// guestProcess is a running guest's side.
type guestProcess struct {
	in  io.WriteCloser
	mu  sync.Mutex
	out []string // guarded by mu
	end chan error
}

func (w *wire) start(t *testing.T, conf Config) *guestProcess {
	t.Helper()
	place := filepath.Join(w.dir, "etc-resolv.conf")
	if err := os.WriteFile(place, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(guestPart{conf, filepath.Join(w.dir, "run", "resolv.conf"), place})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", w.guest, self)
	cmd.Env = append(os.Environ(), guestEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	g := &guestProcess{end: make(chan error, 1)}
	if g.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			g.mu.Lock()
			g.out = append(g.out, lines.Text())
			g.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = g.in.Close()
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		<-read
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("the guest's side ended with %v", err)
		}
		kill.Stop()
		if t.Failed() {
			t.Logf("the guest's side said\n%s", strings.Join(g.lines(), "\n"))
		}
	})
	return g
}

func (g *guestProcess) lines() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.out...)
}

// expect waits for a line that begins so.
func (g *guestProcess) expect(t *testing.T, prefix string) string {
	t.Helper()
	for end := time.Now().Add(waitLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, line := range g.lines() {
			if strings.HasPrefix(line, prefix) {
				return line
			}
		}
	}
	t.Fatalf("the guest's side never said %q", prefix)
	return ""
}

// until asks for the state until it is as wanted.
func (g *guestProcess) until(t *testing.T, what string, ok func(guestState) bool) guestState {
	t.Helper()
	var s guestState
	for end := time.Now().Add(waitLimit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		seen := len(g.lines())
		if _, err := io.WriteString(g.in, "\n"); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			for _, line := range g.lines()[seen:] {
				if text, found := strings.CutPrefix(line, "state "); found {
					s = guestState{}
					if err := json.Unmarshal([]byte(text), &s); err != nil {
						t.Fatal(err)
					}
					if ok(s) {
						return s
					}
				}
			}
		}
	}
	t.Fatalf("the guest never was %s: %+v", what, s)
	return s
}

func has(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}
	return false
}

// in runs f on a thread in the server's namespace: sockets that it opens stay there.
func (w *wire) in(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromName(w.server)
		if err == nil {
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestRootDnsmasq gets a lease of a real server, which is renewed, and none of what else that server says.
func TestRootDnsmasq(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.plug(t)
	var log bytes.Buffer
	leases := filepath.Join(w.dir, "leases")
	cmd := exec.Command("ip", "netns", "exec", w.server, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface="+serverLink,
		"--user=root", "--pid-file=", "--no-ping", "--log-dhcp", "--log-facility=-", "--dhcp-leasefile="+leases, "--dhcp-authoritative", "--dhcp-range=192.0.2.50,192.0.2.50,2m",
		"--dhcp-option=option:T1,5", "--dhcp-option=26,1400", "--dhcp-option=6,192.0.2.53,198.51.100.53", "--dhcp-option-force=12,evil", "--dhcp-option-force=15,evil.example",
		"--dhcp-option-force=42,192.0.2.42", "--dhcp-option-force=121,0.0.0.0/1,192.0.2.66", "--dhcp-boot=evil.img,evil,192.0.2.67")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if got := strings.Count(log.String(), "DHCPACK("); !t.Failed() && got < 2 {
			t.Errorf("%d acknowledgements", got)
		}
		if t.Failed() {
			t.Logf("dnsmasq: %s", log.Bytes())
		}
	})
	g := w.start(t, Config{DHCP: true})
	g.expect(t, "up eth0 192.0.2.50/24")
	s := g.until(t, "set up", func(s guestState) bool { return has(s.Addresses, "192.0.2.50/24") })
	if len(s.Addresses) != 1 || len(s.Routes) != 2 || !has(s.Routes, "0.0.0.0/0 via 192.0.2.1") || !has(s.Routes, "192.0.2.0/24 via <nil>") || len(s.Six) != 0 || s.MTU != 1400 || s.Resolver != "nameserver 192.0.2.53\nnameserver 198.51.100.53\n" {
		t.Errorf("got %+v", s)
	}
	time.Sleep(6 * time.Second) // it renews after five
	if s := g.until(t, "renewed", func(guestState) bool { return true }); !has(s.Addresses, "192.0.2.50/24") {
		t.Errorf("after renewing: %+v", s)
	}
	if host, err := exec.Command("ip", "netns", "exec", w.guest, "hostname").Output(); err != nil || strings.Contains(string(host), "evil") {
		t.Errorf("host name %s, %v", host, err)
	}
}

// TestRootStatic: what measured configuration states, on a card that shows up late.
func TestRootStatic(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	g := w.start(t, Config{
		Interface: guestLink, Static: Settings{Address: netip.MustParsePrefix("192.0.2.9/32"), Gateway: netip.MustParseAddr("192.0.2.1")},
	})
	g.expect(t, "wait network-card")
	w.plug(t)
	g.expect(t, "up eth0 192.0.2.9/32")
	s := g.until(t, "set up", func(s guestState) bool { return has(s.Addresses, "192.0.2.9/32") })
	if len(s.Routes) != 1 || s.Routes[0] != "0.0.0.0/0 via 192.0.2.1" || s.Resolver != "# no name servers\n" {
		t.Errorf("got %+v", s)
	}
	command(t, "ip", "-n", w.server, "route", "replace", "192.0.2.9/32", "dev", serverLink)
	if out, err := exec.Command("ip", "netns", "exec", w.guest, "/bin/busybox", "nc", "-w", "5", "192.0.2.1", "9").CombinedOutput(); err == nil || !strings.Contains(string(out), "refused") {
		t.Errorf("the gateway outside of the subnet is not reached: %v: %s", err, out)
	}
}

// TestRootSLAAC: announcements are heard where configuration says so, and only there.
func TestRootSLAAC(t *testing.T) {
	t.Parallel()
	for name, slaac := range map[string]bool{"asked": true, "unasked": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			w.plug(t)
			g := w.start(t, Config{Static: Settings{Address: netip.MustParsePrefix("192.0.2.9/24")}, SLAAC: slaac})
			g.expect(t, "up ")
			var c net.PacketConn
			w.in(t, func() (err error) {
				c, err = net.ListenPacket("ip6:58", "::")
				return err
			})
			defer c.Close()
			// A router for half an hour, of 2001:db8:1::/64 (RFC 4861, sections 4.2 and 4.6.2).
			announcement := append([]byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0}, netip.MustParseAddr("2001:db8:1::").AsSlice()...)
			announce(t, c, announcement)
			six := func(s guestState) bool { return strings.Contains(strings.Join(s.Six, " "), "2001:db8:1:") }
			if slaac {
				g.until(t, "autoconfigured", func(s guestState) bool { announce(t, c, announcement); return six(s) })
				return
			}
			for range 10 {
				announce(t, c, announcement)
				time.Sleep(50 * time.Millisecond)
			}
			if s := g.until(t, "there", func(guestState) bool { return true }); len(s.Six) > 0 {
				t.Errorf("addresses %q", s.Six)
			}
		})
	}
}
