// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

// aloneGuest is a casemate serve in a mount namespace with a /run of its own.
type aloneGuest struct {
	w      *world
	config string
	serve  string // the program by its absolute path: nsenter changes the directory
	cmd    *exec.Cmd
	log    *bytes.Buffer
	ended  chan error
}

// aloneStatus is what casemate ps --json prints, as far as it is looked at here.
type aloneStatus struct {
	Name     string `json:"name"`
	Digest   string `json:"digest"`
	State    string `json:"state"`
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
	ExitCode *int   `json:"exit_code"`
	Error    string `json:"error"`
}

// alone launches a guest with d. Its /run is mounted at a place that outlives the
// process, so that a second start finds what the first has left.
func (w *world) alone(t *testing.T, d fixture.InitData) *aloneGuest {
	t.Helper()
	if err := w.chip.Launch(strings.Repeat(measurement, 48), d.HostData); err != nil {
		t.Fatal(err)
	}
	serve, err := filepath.Abs(program("casemate-testsnp"))
	if err != nil {
		t.Fatal(err)
	}
	g := &aloneGuest{w: w, config: w.path("casemate.toml"), serve: serve}
	if err := fixture.GuestConfig(g.config, w.chip, d.File, w.registry.Addr, "/run/casemate/image"); err != nil {
		t.Fatal(err)
	}
	g.start(t, "unshare", "--mount", "--propagation", "private", "sh", "-c", `umask 077 && mount -t tmpfs run /run && exec "$0" "$@"`)
	return g
}

// start runs serve behind the words of prefix.
func (g *aloneGuest) start(t *testing.T, prefix ...string) {
	t.Helper()
	args := append(prefix[1:], g.serve, "serve", "--config", g.config)
	cmd, log, ended := exec.Command(prefix[0], args...), &bytes.Buffer{}, make(chan error, 1)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cmd.Wait() }()
	g.cmd, g.log, g.ended = cmd, log, ended
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			t.Error("serve did not end")
		}
		if t.Failed() {
			t.Logf("serve: %s", log)
		}
	})
}

// inside prefixes a command that runs in the guest's mount namespace.
func (g *aloneGuest) inside() []string {
	return []string{"nsenter", "--mount=/proc/" + strconv.Itoa(g.cmd.Process.Pid) + "/ns/mnt", "--"}
}

// ask runs a verb beside the serving casemate.
func (g *aloneGuest) ask(args ...string) (string, error) {
	words := append(append(g.inside(), g.serve), args...)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	return string(out), err
}

// until waits for what casemate ps says of one container.
func (g *aloneGuest) until(t *testing.T, name, what string, ok func(aloneStatus) bool) aloneStatus {
	t.Helper()
	var last string
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		out, err := g.ask("ps", "--json")
		last = fmt.Sprint(out, err)
		var list []aloneStatus
		if err != nil || json.Unmarshal([]byte(out), &list) != nil {
			continue
		}
		for _, s := range list {
			if s.Name == name && ok(s) {
				return s
			}
		}
	}
	t.Fatalf("%s never was %s: %s", name, what, last)
	return aloneStatus{}
}

func running(s aloneStatus) bool { return s.State == "running" }

// finish asks serve to end and wants it to leave nothing.
func (g *aloneGuest) finish(t *testing.T) {
	t.Helper()
	// Somebody has to stay in the namespace for it to be looked at afterwards.
	words := append(g.inside(), "sh", "-c", "echo in; read x; cat /proc/self/mountinfo; find /run")
	stay := exec.Command(words[0], words[1:]...)
	input, err := stay.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	stay.Stdout = &out
	if err := stay.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if err := g.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-g.ended:
		if err != nil {
			t.Errorf("serve ended with %v: %s", err, g.log)
		}
		g.ended <- err
	case <-time.After(30 * time.Second):
		t.Fatal("serve did not end")
	}
	_ = input.Close()
	if err := stay.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{"/run/casemate/image/standalone", "control.sock", "overlay /run", "/run/casemate/standalone"} {
		if strings.Contains(out.String(), left) {
			t.Errorf("%s is left:\n%s", left, out.String())
		}
	}
}

// nameservers counts the lines of the guest's resolv.conf, which containers share.
func nameservers(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	return len(strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' }))
}

// alive says whether a process is there and no zombie.
func alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// TestStandalone is a guest without kata: bound initdata declares containers of an
// encrypted and signed image of a real registry, a real keybroker releases the key and
// a sealed variable, and ps, logs and stop work on what runs.
func TestStandalone(t *testing.T) {
	w := newWorld(t)
	w.register(t, "alone", "sha256:"+strings.Repeat("11", 32))
	image := w.image(t, "alone")
	w.secret(t, "alone", "app/config/word", "canary word")
	sealed := bytes.TrimSpace(w.must(t, "casemate-build", "seal", "kbs:///app/config/word",
		"--key", w.path("owner.key"), "--key-id", "kbs:///app/signing/1", "--jwk-out", w.path("owner.jwk")))
	jwk, err := os.ReadFile(w.path("owner.jwk"))
	if err != nil {
		t.Fatal(err)
	}
	w.secret(t, "alone", "app/signing/1", string(jwk))
	other := w.registry.Addr + "/alone/unsigned:1"
	if out, err := exec.Command("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+image, "docker://"+other).CombinedOutput(); err != nil {
		t.Fatalf("skopeo: %v: %s", err, out)
	}
	declare := func(name, image, script, more string) string {
		return fmt.Sprintf("[[container]]\nname = %q\nimage = %q\nargs = [%q]\n%s\n", name, image, script, more)
	}
	d, err := fixture.WriteInitData(t.Context(), program("casemate-build"), w.path("initdata-alone.toml"), fixture.InitDataOptions{
		Workload: "alone", KBS: w.broker.URL, Cert: w.broker.Cert, Policy: w.policy,
		Casemate: declare("web", image, `trap 'echo bye; exit 0' TERM; echo "web $WHO $WORD $(/bin/busybox id -u) $(/bin/busybox grep -c . /etc/resolv.conf)"; while :; do /bin/busybox sleep 0.1; done`,
			fmt.Sprintf("env = ['WHO=here']\nsealed_env = [%q]\nrestart = 'always'\nuser = '7:8'", "WORD="+string(sealed))) +
			declare("once", image, "echo once; exit 3", "") +
			declare("flappy", image, `echo try; exit 1`, "restart = 'on-failure'") +
			declare("done", image, "exit 0", "restart = 'on-failure'") +
			declare("loud", image, "/bin/busybox yes 0123456789 | /bin/busybox head -c 1000000; echo the end", "") +
			declare("denied", other, "echo never", "restart = 'always'"),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.register(t, "alone", d.Digest)
	g := w.alone(t, d)

	web := g.until(t, "web", "running", running)
	if web.Digest == "" || web.PID == 0 {
		t.Errorf("web: got %+v, want a digest and a process", web)
	}
	logs := func(name, want string) {
		t.Helper()
		var out string
		for range 100 {
			if out, err = g.ask("logs", name); err == nil && strings.Contains(out, want) {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Errorf("logs of %s: got %.500q, %v, want %q", name, out, err, want)
	}
	line := fmt.Sprintf("web here canary word 7 %d\n", nameservers(t)) // its handler is set by then
	logs("web", line)
	once := g.until(t, "once", "exited", func(s aloneStatus) bool { return s.State == "exited" })
	if once.ExitCode == nil || *once.ExitCode != 3 || once.Restarts != 0 {
		t.Errorf("once: got %+v, want status 3 and no restart", once)
	}
	if s := g.until(t, "done", "exited", func(s aloneStatus) bool { return s.State == "exited" }); s.Restarts != 0 {
		t.Errorf("done: got %+v, want no restart", s)
	}
	g.until(t, "flappy", "started again", func(s aloneStatus) bool { return s.Restarts >= 2 })
	logs("flappy", "try\ntry\n")
	denied := g.until(t, "denied", "failed", func(s aloneStatus) bool { return s.State == "failed" })
	if !strings.Contains(denied.Error, "denied by policy") || denied.Restarts != 0 {
		t.Errorf("denied: got %+v", denied)
	}
	g.until(t, "loud", "exited", func(s aloneStatus) bool { return s.State == "exited" })
	logs("loud", "the end\n")
	if out, _ := g.ask("logs", "loud"); len(out) > 300_000 || !strings.Contains(out, "earlier bytes are not kept") {
		t.Errorf("loud: %d bytes of output are kept", len(out))
	}

	// A container that dies is back, under the same digest; one that is stopped is not.
	if err := unix.Kill(web.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again := g.until(t, "web", "started again", func(s aloneStatus) bool { return running(s) && s.Restarts == 1 })
	if again.Digest != web.Digest {
		t.Errorf("restarted from %s, want %s", again.Digest, web.Digest)
	}
	logs("web", line+line)
	if out, err := g.ask("stop", "web"); err != nil {
		t.Errorf("stop: %v: %s", err, out)
	}
	if s := g.until(t, "web", "stopped", func(s aloneStatus) bool { return s.State == "stopped" }); s.ExitCode == nil || *s.ExitCode != 0 {
		t.Errorf("stopped: got %+v, want status 0 of its handler", s)
	}
	logs("web", "bye\n")
	if alive(again.PID) {
		t.Error("the stopped container still runs")
	}
	if out, err := g.ask("stop", "nobody"); err == nil || !strings.Contains(out, "no such container") {
		t.Errorf("stop of nobody: got %q, %v", out, err)
	}
	// Another user finds no way in, whatever the socket's directory allows.
	words := append(g.inside(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", g.serve, "ps")
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err == nil {
		t.Errorf("another user lists containers: %s", out)
	}
	g.finish(t)
}

// TestStandaloneAfterCrash: serve is killed, its containers live on; the next serve
// ends them before it starts its own.
func TestStandaloneAfterCrash(t *testing.T) {
	w := newWorld(t)
	w.register(t, "alone", "sha256:"+strings.Repeat("11", 32))
	image := w.image(t, "alone")
	d, err := fixture.WriteInitData(t.Context(), program("casemate-build"), w.path("initdata-alone.toml"), fixture.InitDataOptions{
		Workload: "alone", KBS: w.broker.URL, Cert: w.broker.Cert, Policy: w.policy,
		Casemate: fmt.Sprintf("[[container]]\nname = 'crash'\nimage = %q\nargs = ['while :; do /bin/busybox sleep 1; done']\nrestart = 'always'\n", image),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.register(t, "alone", d.Digest)
	g := w.alone(t, d)
	before := g.until(t, "crash", "running", running)
	// A process that stays in the guest's mount namespace keeps it.
	words := append(g.inside(), "sleep", "60")
	keep := exec.Command(words[0], words[1:]...)
	if err := keep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keep.Process.Kill(); _ = keep.Wait() }()
	time.Sleep(200 * time.Millisecond)
	_ = g.cmd.Process.Kill()
	g.ended <- <-g.ended
	if !alive(before.PID) {
		t.Fatal("the container ended with its supervisor: nothing to test")
	}
	g.start(t, "nsenter", "--mount=/proc/"+strconv.Itoa(keep.Process.Pid)+"/ns/mnt", "--")
	after := g.until(t, "crash", "running", running)
	if alive(before.PID) || after.PID == before.PID {
		t.Errorf("before %d, after %d: the first one still runs", before.PID, after.PID)
	}
	g.finish(t)
}

// TestRunLongerThanItsCleanUp: the time for tidying up begins when a container has ended,
// however long it ran.
func TestRunLongerThanItsCleanUp(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-long.toml", "long", w.policy)
	w.register(t, "long", d.Digest)
	image := w.image(t, "long")
	// The last words come from a process that outlives the first one by a moment.
	out, log, err := w.guest(t, d, "run", image, "--", "(/bin/busybox sleep 31.2; echo late) & /bin/busybox sleep 31; echo last")
	if err != nil || out != "last\n" {
		t.Errorf("got %q, %v: %s", out, err, log)
	}
}
