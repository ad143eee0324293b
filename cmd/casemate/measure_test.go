// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/casemate/casemate/agent/eventlog"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// register is RTMR3 in memory.
type register struct{ value []byte }

func (*register) Number() uint32           { return 4 }
func (*register) Hash() crypto.Hash        { return crypto.SHA384 }
func (r *register) Value() ([]byte, error) { return bytes.Clone(r.value), nil }
func (r *register) Extend(d []byte) error {
	h := crypto.SHA384.New()
	h.Write(r.value)
	h.Write(d)
	r.value = h.Sum(nil)
	return nil
}

// ociImage writes a small image and returns its reference and digest.
func ociImage(t *testing.T) (reference, digest string) {
	t.Helper()
	img, err := random.Image(2048, 1)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file.OS, file.Architecture, file.Config.Cmd = "linux", runtime.GOARCH, []string{"/bin/app"}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	hash, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir, hash.String()
}

func TestPullsAreRecorded(t *testing.T) {
	reference, digest := ociImage(t)
	dir, rtmr := t.TempDir(), &register{make([]byte, 48)}
	measured := config.Measured{
		Image:    config.Image{Policy: `{"default":[{"type":"insecureAcceptAnything"}]}`},
		EventLog: config.EventLog{Enable: true, Require: true},
	}
	pull := func(c config.Measured, events *eventlog.Log) error {
		m := testMachine(c)
		m.attester, m.events = sampleTEE{}, events
		puller, _, err := m.pull(t.Context(), reference, filepath.Join(t.TempDir(), "store"))
		if err == nil {
			err = puller.Close()
		}
		return err
	}
	for range 2 { // the second time in a process that was started again
		events, err := eventlog.Open(dir, rtmr)
		if err != nil {
			t.Fatal(err)
		}
		if err := pull(measured, events); err != nil {
			t.Fatal(err)
		}
		got, err := events.Entries()
		want := `github.com/confidential-containers PullImage {"image":"` + reference + `", "digest":"` + digest + `"}`
		if err != nil || len(got) != 1 || got[0] != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	unbound, err := eventlog.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pull(measured, unbound); err == nil || !strings.Contains(err.Error(), "eventlog.require") {
		t.Errorf("a register is required and there is none: %v", err)
	}
	if entries, err := unbound.Entries(); len(entries) > 0 || err != nil {
		t.Errorf("recorded %q, %v", entries, err)
	}
	measured.EventLog.Require = false
	if err := pull(measured, unbound); err != nil {
		t.Error(err)
	}
	if entries, err := unbound.Entries(); len(entries) != 1 || err != nil {
		t.Errorf("recorded %q, %v", entries, err)
	}
}

func TestStartsAreRecorded(t *testing.T) {
	events, err := eventlog.Open(t.TempDir(), &register{make([]byte, 48)})
	if err != nil {
		t.Fatal(err)
	}
	m := testMachine(config.Measured{})
	if err := m.measureStart(started{"run-0", "i", "d"}); err != nil {
		t.Errorf("no log is kept: %v", err)
	}
	m.events = events
	for _, id := range []string{"run-1", "run-2"} {
		if err := m.measureStart(started{id, "registry/app:1", "sha256:ab"}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := events.Entries()
	if err != nil || len(got) != 2 || got[1] != `casemate StartContainer {"id":"run-2","image":"registry/app:1","digest":"sha256:ab"}` {
		t.Errorf("got %q, %v", got, err)
	}
	if err := m.measureImage(`a","digest":"sha256:other`, "sha256:ab"); err == nil {
		t.Error("a reference that writes its own digest was recorded")
	}
}

func TestOpenEvents(t *testing.T) {
	m := testMachine(config.Measured{})
	m.attester = sampleTEE{}
	if err := m.openEvents("/proc/none", "/proc/none"); err != nil || m.events != nil {
		t.Errorf("not enabled: %v", err)
	}
	agent, stop, err := m.agent()
	if err != nil || agent.Events != nil {
		t.Errorf("not enabled, and the agent records: %v", err)
	}
	stop()
	m.conf.EventLog.Enable = true
	if err := m.openEvents(filepath.Join(t.TempDir(), "log"), "/proc/none"); err != nil || m.events == nil || m.events.Bound() {
		t.Errorf("enabled without a register: %v", err)
	}
	if agent, stop, err = m.agent(); err != nil || agent.Events == nil {
		t.Errorf("enabled, and the agent does not record: %v", err)
	}
	stop()
	held := false
	if err := (heldEvents{m}).Hold(func(entries []byte) error { held = entries == nil; return nil }); err != nil || !held {
		t.Errorf("unbound entries go into evidence: %v", err)
	}
}
