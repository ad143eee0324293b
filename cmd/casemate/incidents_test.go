// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/agent/policy"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/casemate/internal/incidents"
	"github.com/casemate/casemate/imagepull/trust"
	"github.com/casemate/casemate/keyprovider"
)

// listener is a relying party over TLS that hears incidents.
type listener struct {
	*kbstest.Server
	mu    sync.Mutex // guards heard and raw
	heard []evidence.Incident
	raw   string
}

// lockedLog is what several goroutines write to.
type lockedLog struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func startListener(t *testing.T) *listener {
	t.Helper()
	l := &listener{Server: kbstest.StartTLS()}
	t.Cleanup(l.Close)
	l.Incidents = func(_ string, body []byte) (int, []byte) {
		l.mu.Lock()
		defer l.mu.Unlock()
		m, err := evidence.ParseIncidents(body)
		if err != nil {
			t.Error(err)
			return http.StatusBadRequest, nil
		}
		l.heard, l.raw = append(l.heard, m.List...), l.raw+string(body)
		return http.StatusOK, []byte(`{"ticket":"incidents:x"}`)
	}
	return l
}

// teller is a guest of l that tells of incidents, and logs into log.
func (l *listener) teller(t *testing.T, c config.Measured, log io.Writer) *machine {
	t.Helper()
	c.KBS = config.KBS{URL: l.URL, Cert: l.Cert}
	m := testMachine(c)
	m.attester = sampleTEE{}
	m.log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m.incidents = incidents.New(m.log, sinceStart)
	return m
}

// all returns what was heard by the end of m.
func (l *listener) all(m *machine) ([]evidence.Incident, string) {
	m.lastWords(nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard, l.raw
}

// TestIncidentsHoldNoSecret: each way in which something fails over a secret is told of, and none repeats it.
func TestIncidentsHoldNoSecret(t *testing.T) {
	const canary = "canary-5b0e77"
	l := startListener(t)
	for path, secret := range map[string]string{
		"app/policy/1": `{"default":[{"type":"` + canary + `"}],"` + canary, "app/login/1": `{"auths":{"h":{"auth":"` + canary + `"},` + canary,
		"app/conf/1": canary + ` = [` + canary, "app/conf/2": `registry = "` + canary + `"`, "app/conf/3": "[[registry]]\nlocation = \"u:" + canary + `@h"`,
		"app/aside/1": canary + ": [" + canary, "app/aside/2": "docker: " + canary, "app/aside/3": "default-docker: {lookaside: 'https://u:" + canary + "@h'}",
		"app/key/1": canary, "app/jwk/1": canary,
	} {
		l.Put(path, []byte(secret))
	}
	host, reference, _ := pushed(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keyprovider.SealVault(key, "kbs:///app/jwk/1", "kbs:///app/key/1")
	if err != nil {
		t.Fatal(err)
	}
	image := config.Image{Policy: anything, InsecureRegistries: []string{host}}
	log := new(lockedLog)
	for name, tt := range map[string]struct {
		change func(*config.Image)
		want   string
	}{
		"policy":                      {func(c *config.Image) { c.Policy, c.PolicyURI = "", "kbs:///app/policy/1" }, "pull: "},
		"credentials":                 {func(c *config.Image) { c.CredentialsURI = "kbs:///app/login/1" }, "pull: "},
		"registries that are no TOML": {func(c *config.Image) { c.RegistriesURI = "kbs:///app/conf/1" }, "pull: "},
		"registries that are a text":  {func(c *config.Image) { c.RegistriesURI = "kbs:///app/conf/2" }, "pull: "},
		"a registry's password":       {func(c *config.Image) { c.RegistriesURI = "kbs:///app/conf/3" }, "pull: "},
		"a lookaside that is no YAML": {func(c *config.Image) { c.LookasideURI = "kbs:///app/aside/1" }, "pull: "},
		"a lookaside that is a text":  {func(c *config.Image) { c.LookasideURI = "kbs:///app/aside/2" }, "pull: "},
		"a lookaside's password":      {func(c *config.Image) { c.LookasideURI = "kbs:///app/aside/3" }, "pull: "},
		"denied":                      {func(c *config.Image) { c.Policy = `{"default":[{"type":"reject"}]}` }, "pull: image policy"},
		"sealed":                      {nil, stageSealed},
	} {
		c := image
		if tt.change != nil {
			tt.change(&c)
		}
		m := l.teller(t, config.Measured{Image: c}, log)
		images := newPodImages(t.TempDir())
		images.use(m)
		if tt.change != nil {
			_, err := images.Open(t.Context(), reference, t.TempDir())
			if err == nil {
				t.Fatalf("%s: pulled", name)
			}
			images.failed("CreateContainerRequest", "app", err)
		} else {
			client, err := m.attested(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			u, err := m.unsealer(client)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := (toldUnsealer{m, u}).Unseal(t.Context(), sealed); err == nil {
				t.Fatalf("%s: opened", name)
			}
		}
		before := len(l.heard)
		heard, raw := l.all(m)
		if len(heard) != before+1 || !strings.HasPrefix(heard[before].Stage, tt.want) || heard[before].Error == "" {
			t.Errorf("%s: heard %+v", name, heard[before:])
		}
		if strings.Contains(raw, canary) || strings.Contains(log.String(), canary) {
			t.Errorf("%s: the secret is told:\n%s\n%s", name, raw, log.String())
		}
		if err := images.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDenialsAreTold: what explain policy says of a denial in the guest the owner is told, with the line that opens a
// probe. The host's error has none of it.
func TestDenialsAreTold(t *testing.T) {
	const canary = "canary-91ab22"
	l := startListener(t)
	log := new(lockedLog)
	m := l.teller(t, config.Measured{}, log)
	text := "package agent_policy\nimport rego.v1\ndefault ExecProcessRequest := false\n" +
		"ExecProcessRequest if {\n\tprint(\"args\", input.process.Args, \"" + canary + "\")\n\tinput.process.Args == [\"" + canary + "\"]\n}\n"
	m.rego = &text
	p, err := m.agentPolicy()
	if err != nil {
		t.Fatal(err)
	}
	p.Watch(func(d policy.Denial) { m.explains.take(m.incidents, d) })
	denied := p.Allow(t.Context(), "ExecProcessRequest", &kata.ExecProcessRequest{ContainerId: "app", Process: &kata.Process{Args: []string{"sh", "-c", "x"}}})
	if denied == nil || strings.Contains(denied.Error(), canary) {
		t.Fatalf("got %v", denied)
	}
	images := newPodImages(t.TempDir())
	images.use(m)
	differs := images.failedAdmission(t)
	if _, err := m.attested(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard, _ := l.all(m)
	if len(heard) != 2 {
		t.Fatalf("heard %+v", heard)
	}
	for _, i := range heard {
		switch i.Request {
		case "ExecProcessRequest":
			if i.Stage != stagePolicy || i.Subject != "app" || i.Error != "policy-denied: the policy does not allow the request" ||
				i.Remedy != `casemate-build agent-policy POD.yaml -o policy.rego --exec 'CONTAINER=["sh","-c","x"]'` {
				t.Errorf("heard %+v", i)
			}
			if len(i.Conditions) == 0 || i.Conditions[0].Given != `["sh", "-c", "x"]` || !strings.Contains(fmt.Sprint(i.Conditions[0].Wanted), canary) || len(i.Prints) != 1 || !strings.Contains(i.Prints[0], canary) {
				t.Errorf("heard %+v", i)
			}
		case "CreateContainerRequest":
			if len(i.Conditions) != 1 || i.Conditions[0].Field != "OCI.Process.Args" || !strings.Contains(fmt.Sprint(i.Conditions[0].Wanted), "/app") {
				t.Errorf("heard %+v", i)
			}
		default:
			t.Errorf("heard %+v", i)
		}
	}
	if strings.Contains(log.String(), canary) || strings.Contains(differs.Error(), "/app") {
		t.Errorf("logged %s, the host reads %v", log.String(), differs)
	}
}

// failedAdmission has a process refused that is not the image's, as the pod's handler sees it.
func (p *podImages) failedAdmission(t *testing.T) error {
	t.Helper()
	differs := &pod.Difference{What: "the command line", Field: "OCI.Process.Args", Given: `["sh"]`, Wanted: []string{`["/app"]`}}
	p.m.admitDenied(differs)
	err := told{differs.Refusal()}
	p.failed("CreateContainerRequest", "app", err) // told already
	failure, ok := errors.AsType[*pod.Failure](err)
	if !ok || failure.Code != codes.PermissionDenied || failure.Err != nil {
		t.Errorf("the host reads %v", failure)
	}
	return failure
}

// TestFailedRequests: which failures an owner is told of, and what of them.
func TestFailedRequests(t *testing.T) {
	l := startListener(t)
	log := new(lockedLog)
	m := l.teller(t, config.Measured{}, log)
	images := newPodImages(t.TempDir())
	images.failed("CreateContainerRequest", "early", errors.New("before the guest was accepted"))
	images.use(m)
	for _, tt := range []struct {
		request, container string
		err                error
	}{
		{"WaitProcessRequest", "app", errors.New("no such process")},
		{"CreateContainerRequest", "app", context.Canceled},
		{"CreateContainerRequest", "one", &pod.Failure{Code: codes.Internal, Phrase: "phrase", Err: errors.New("cause")}},
		{"CreateContainerRequest", "two", hostPhrase("image", fmt.Errorf("pulling: %w", trust.ErrDenied))},
		{"CreateContainerRequest", "three", &pod.Failure{Phrase: "volume could not be opened", Err: ofStage(stageVolume, "data", errors.New("wrong key"))}},
		{"CreateContainerRequest", "four", hostPhrase("image", m.notAttested(errors.New("no evidence")))},
	} {
		images.failed(tt.request, tt.container, tt.err)
	}
	if _, err := m.attested(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard, _ := l.all(m)
	var got []string
	for _, i := range heard {
		got = append(got, i.Stage+"|"+i.Subject+"|"+i.Error)
	}
	want := []string{
		"request|one|phrase: cause", "pull: image policy|image|Failed to pull image image: Image policy rejected: Denied by policy: pulling: " + trust.ErrDenied.Error(),
		"volume|data|volume could not be opened: wrong key", "pull: attestation|image|Failed to pull image image: attest-failed: the guest has no evidence to show: no evidence",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("heard\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestDenialFlood: a host that has requests denied without end gets few of them explained, none is waited for, and the
// first is there with its conditions.
func TestDenialFlood(t *testing.T) {
	l := startListener(t)
	m := l.teller(t, config.Measured{}, io.Discard)
	p, err := policy.BuiltIn(false)
	if err != nil {
		t.Fatal(err)
	}
	var took time.Duration
	p.Watch(func(d policy.Denial) {
		began := time.Now()
		m.explains.take(m.incidents, d)
		took = max(took, time.Since(began))
	})
	for n := range 500 {
		err := p.Allow(t.Context(), "ExecProcessRequest", &kata.ExecProcessRequest{ContainerId: fmt.Sprint("c", n), Process: &kata.Process{Args: []string{"sh"}}})
		if d, ok := errors.AsType[*agent.Denial](err); !ok || d.Reason.Code != "policy-silent" && d.Reason.Code != "policy-denied" {
			t.Fatal(err)
		}
		m.explains.mu.Lock()
		if len(m.explains.waiting) > maxExplains {
			t.Fatalf("%d wait", len(m.explains.waiting))
		}
		m.explains.mu.Unlock()
	}
	if took > 200*time.Millisecond { // it takes no lock that is held for long
		t.Errorf("a denial waited %v", took)
	}
	m.explains.mu.Lock()
	m.explains.spent = explainCredit + time.Second
	m.explains.at = time.Now()
	m.explains.mu.Unlock()
	m.explains.take(m.incidents, policy.Denial{Request: "X"})
	m.explains.mu.Lock()
	if e := &m.explains; len(e.waiting) > maxExplains || e.affords(time.Now()) || !e.affords(time.Now().Add(explainShare*2*time.Second)) {
		t.Error("explaining goes on beyond its credit, or never again")
	}
	m.explains.mu.Unlock()
	if _, err := m.attested(t.Context()); err != nil {
		t.Fatal(err)
	}
	if heard, _ := l.all(m); len(heard) != incidents.MaxKept {
		t.Errorf("%d were told of", len(heard))
	}
}
