// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/casemate/casemate/agent/attest"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/eventlog"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/casemate/internal/incidents"
	"github.com/casemate/casemate/cmd/casemate/internal/standalone"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/imagepull/trust"
)

// machine is this guest once it knows what it is: its TEE, the initdata that the
// evidence carries, and the configuration that follows from both.
type machine struct {
	conf     config.Measured
	attester attest.Attester
	devices  []attest.Attester // that attest beside it
	initdata []byte            // verbatim, nil when there is none
	rego     *string           // initdata's policy.rego, nil when there is none
	events   *eventlog.Log
	scratch  scratch // open while run or serve runs
	pulls    pullMeter
	sealed   atomic.Uint64 // mappings of sealed layers, in all stores
	// transcript is where the last handshake is written down; "" is nowhere.
	transcript string
	denials    denials
	// incidents tells the relying party what was refused or failed; nil tells nobody. explains finds out why requests were
	// denied, for it.
	incidents *incidents.Reporter
	explains  explainer
	steps     steps
	log       *slog.Logger
	// disks lists those that initdata is looked for on; nil looks at none.
	disks func() ([]string, error)
	// clock is told the relying party's time; nil is nobody.
	clock func(time.Time)
	// reaper collects this process's orphans where one runs already; nil has each runtime run its own.
	reaper *container.Reaper
	// seen is told when a declared container begins or ends; nil is nobody.
	seen func(name string, s standalone.State)
}

// source is where a guest's configuration is, and who is told what is done with it.
type source struct {
	config string // the measured casemate.toml
	steps  steps
	log    *slog.Logger
	disks  func() ([]string, error) // as in machine
	clock  func(time.Time)          // as in machine
}

// source is what a verb's flags say of it.
func (o options) source() source {
	s := source{config: o.config, steps: steps{os.Stderr, timeline{defaultTimeline}}, log: warnings()}
	if o.quiet {
		s.steps.w = io.Discard
	}
	return s
}

// openGuest opens the guest that a verb's flags name.
func openGuest(ctx context.Context, o options) (*machine, error) { return o.source().open(ctx) }

// open reads the measured configuration, finds the TEE and checks initdata against a
// fresh report. Nothing is asked of the relying party yet.
func (s source) open(ctx context.Context) (*machine, error) {
	m := newMachine()
	m.steps, m.log, m.disks, m.clock = s.steps, s.log, s.disks, s.clock
	m.incidents = incidents.New(s.log, sinceStart)
	var err error
	if m.conf, err = config.Load(s.config); err != nil {
		return nil, err
	}
	if err := m.detect(); err != nil {
		return nil, err
	}
	if err := m.steps.do("check initdata against a fresh report", func() error { return m.bindInitData(ctx) }); err != nil {
		return nil, err
	}
	if err := m.checkDebug(); err != nil {
		return nil, err
	}
	if err := m.openEvents(eventlog.DefaultDir, eventlog.DefaultMeasurements); err != nil {
		return nil, err
	}
	m.sayWeaknesses()
	return m, nil
}

// warnings is the log of a verb: what is worth a look, on standard error.
func warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// newMachine knows nothing yet and tells what it does on standard error.
func newMachine() *machine {
	m := &machine{transcript: defaultTranscript, denials: denials{path: defaultDenial}, steps: steps{os.Stderr, timeline{defaultTimeline}}, log: warnings()}
	m.incidents = incidents.New(m.log, sinceStart)
	return m
}

func (m *machine) detect() error {
	return m.steps.do("find the TEE", func() (err error) {
		m.attester, err = attest.Detect(attest.Config{TEE: m.conf.TEE, TestSignerDir: m.conf.TestSNP.Dir, Runtime: heldEvents{m}, Log: m.log})
		if err == nil {
			m.devices, err = attest.Devices(attest.Config{Runtime: m.deviceEvents(), Log: m.log}, m.conf.Devices)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errNoTEE, err)
		}
		return nil
	})
}

// errNoTEE marks a machine that is not of the kind that configuration wants.
var errNoTEE = errors.New("this machine cannot attest")

func (m *machine) sayWeaknesses() {
	for _, w := range m.conf.Weaknesses() {
		m.steps.say("weakened by measured configuration: %s", w)
	}
}

// readCapped reads a file of at most limit bytes.
func readCapped(path string, limit int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := readAll(file, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return raw, nil
}

// readAll reads to the end, which must come within limit bytes.
func readAll(r io.Reader, limit int) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > limit {
		return nil, fmt.Errorf("want at most %d bytes", limit)
	}
	return raw, nil
}

// relyingParty is the client of the KBS that configuration names.
func (m *machine) relyingParty() (*kbs.Client, error) {
	c, err := m.kbsConfig()
	if err != nil {
		return nil, err
	}
	var client *kbs.Client
	keep := c.Transcript
	c.Transcript = func(t kbs.Transcript) {
		keep(t)
		if t.Error == "" {
			m.incidents.Use(client)
		}
	}
	client, err = kbs.New(c)
	return client, err
}

func (m *machine) kbsConfig() (kbs.Config, error) {
	if m.conf.KBS.URL == "" {
		return kbs.Config{}, errors.New("no KBS is configured: kbs.url, or kbc.url in initdata's cdh.toml")
	}
	var roots *x509.CertPool
	if m.conf.KBS.Cert != "" {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(m.conf.KBS.Cert)) {
			return kbs.Config{}, errors.New("reading kbs.cert: want a PEM certificate")
		}
	}
	return kbs.Config{
		URL: m.conf.KBS.URL, Roots: roots, AllowPlainHTTP: m.conf.KBS.PlainHTTP,
		KeyAlgorithm: kbs.KeyAlgorithm(m.conf.KBS.KeyAlgorithm), Attester: m.attester, Devices: kbsDevices(m.devices), InitData: m.initdata, Transcript: m.keepTranscript, Report: m.report, Issued: m.clock, Log: m.log,
	}, nil
}

func kbsDevices(devices []attest.Attester) (list []kbs.Attester) {
	for _, d := range devices {
		list = append(list, d)
	}
	return list
}

// document reads what a URI of the configuration names: kbs:// from the relying
// party, file:// from the measured root.
func (m *machine) document(ctx context.Context, client *kbs.Client, uri string, limit int) ([]byte, error) {
	if path, ok := strings.CutPrefix(uri, "file://"); ok {
		return readCapped(path, limit)
	}
	if client == nil {
		return nil, fmt.Errorf("%s: no KBS is configured", uri)
	}
	return client.Key(ctx, uri)
}

// maxDocument caps policy.json and auth.json files.
const maxDocument = 1 << 20

// puller admits images by the configured policy and opens their layers with unwrapper,
// nil where no KBS is configured: then encrypted layers are refused.
func (m *machine) puller(ctx context.Context, client *kbs.Client, unwrapper imagepull.KeyUnwrapper, store string) (*imagepull.Puller, error) {
	policy, err := m.policy(ctx, client)
	if err != nil {
		return nil, err
	}
	c := imagepull.Config{Store: store, Policy: policy, Unwrapper: unwrapper, Insecure: m.conf.Image.InsecureRegistries, Log: m.log, Progress: m.pulls.watch(m.steps.progress())}
	c.Proxy = imagepull.Proxy{HTTPS: m.conf.Image.HTTPSProxy, HTTP: m.conf.Image.HTTPProxy, No: m.conf.Image.NoProxy}
	if m.conf.Image.Verity {
		c.Sealer = m.storeSealer()
	}
	if uri := m.conf.Image.CredentialsURI; uri != "" {
		raw, err := m.document(ctx, client, uri, maxDocument)
		if err != nil {
			return nil, fmt.Errorf("reading registry credentials: %w", err)
		}
		defer clear(raw)
		if c.Credentials, err = imagepull.ParseAuthFile(raw); err != nil {
			return nil, err
		}
	}
	if c.Registries, err = m.registries(ctx, client); err != nil {
		return nil, err
	}
	if c.Lookaside, err = m.lookaside(ctx, client); err != nil {
		return nil, err
	}
	if dir := m.conf.Image.CertsDir; dir != "" {
		if c.Certificates, err = imagepull.ReadCertificates(dir); err != nil {
			return nil, err
		}
	}
	if len(m.conf.Image.Roots) > 0 {
		if c.Roots, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("reading the system's roots: %w", err)
		}
		for i, pem := range m.conf.Image.Roots {
			if !c.Roots.AppendCertsFromPEM([]byte(pem)) {
				return nil, fmt.Errorf("reading image.roots[%d]: want a PEM certificate", i)
			}
		}
	}
	return imagepull.New(c)
}

// registries reads the configured registries.conf, nil without one, and prints each
// place in it that is spoken to over plain HTTP.
func (m *machine) registries(ctx context.Context, client *kbs.Client) (*imagepull.Registries, error) {
	uri := m.conf.Image.RegistriesURI
	if uri == "" {
		return nil, nil
	}
	raw, err := m.document(ctx, client, uri, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("reading registries.conf: %w", err)
	}
	r, err := imagepull.ParseRegistries(raw)
	if err != nil {
		return nil, err
	}
	for _, place := range r.Insecure() {
		m.steps.say("weakened by measured configuration: image.registries_uri: %s is spoken to over plain HTTP", place)
	}
	return r, nil
}

func (m *machine) lookaside(ctx context.Context, client *kbs.Client) (*imagepull.Lookaside, error) {
	uri := m.conf.Image.LookasideURI
	if uri == "" {
		return nil, nil
	}
	raw, err := m.document(ctx, client, uri, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("reading registries.d: %w", err)
	}
	return imagepull.ParseLookaside(raw)
}

func (m *machine) policy(ctx context.Context, client *kbs.Client) (*trust.Policy, error) {
	text := []byte(m.conf.Image.Policy)
	if uri := m.conf.Image.PolicyURI; uri != "" {
		var err error
		if text, err = m.document(ctx, client, uri, maxDocument); err != nil {
			return nil, fmt.Errorf("reading the image policy: %w", err)
		}
	}
	if len(text) == 0 {
		return nil, nil // imagepull refuses every image and says so
	}
	policy, err := trust.ParsePolicy(text)
	if err != nil {
		return nil, err
	}
	return policy, policy.LoadKeys(ctx, keyReader{m, client})
}

// keyReader reads the verification keys that a policy names by path: a file of the
// measured root, or a secret of the relying party.
type keyReader struct {
	m      *machine
	client *kbs.Client
}

// maxPublicKey caps a PEM file with one public key.
const maxPublicKey = 64 << 10

// ReadKey returns the file or secret that path names.
func (k keyReader) ReadKey(ctx context.Context, path string) ([]byte, error) {
	if !strings.Contains(path, "://") {
		path = "file://" + path
	}
	return k.m.document(ctx, k.client, path, maxPublicKey)
}
