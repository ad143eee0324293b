// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	cdh "github.com/casemate/casemate/agent/api/datahub"
	"github.com/casemate/casemate/agent/eventlog"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/imagepull"
)

// pushed serves one image from a registry of its own.
func pushed(t *testing.T) (host, reference, digest string) {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	local, digest := ociImage(t)
	path, err := layout.FromPath(strings.TrimPrefix(local, "oci:"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host+"/app:1", name.Insecure)
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return host, host + "/app:1", digest
}

// hubClient serves m's data hub and returns a client of it.
func hubClient(t *testing.T, m *machine) cdh.TTRPCImagePullServiceService {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cdh.sock")
	background(t, "unix", path, func(ctx context.Context) error { return m.serveHub(ctx, "unix://"+path) })
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() { _ = client.Close() })
	return cdh.NewTTRPCImagePullServiceClient(client)
}

func pullingMachine(t *testing.T, host, policy string) *machine {
	m := testMachine(config.Measured{Image: config.Image{Policy: policy, InsecureRegistries: []string{host}, Store: t.TempDir()}})
	m.attester = sampleTEE{}
	var err error
	if m.events, err = eventlog.Open(t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	return m
}

const anything = `{"default":[{"type":"insecureAcceptAnything"}]}`

func TestPullImageRefusals(t *testing.T) {
	host, reference, _ := pushed(t)
	const prefix = "[CDH] [ERROR]: Image Pull error: Failed to pull image"
	for name, c := range map[string]struct{ policy, image, bundle, want string }{
		"no policy":             {"", reference, "/tmp/none/x", prefix + ": Image policy rejected: Denied by policy"},
		"denied":                {`{"default":[{"type":"reject"}]}`, reference, "/tmp/none/x", prefix + ": Image policy rejected: Denied by policy"},
		"not there":             {anything, host + "/gone:1", "/tmp/none/x", prefix + ": " + string(imagepull.ErrNotFound)},
		"a directory of ours":   {anything, "oci:/etc", "/tmp/none/x", prefix},
		"relative bundle":       {anything, reference, "x", prefix},
		"bundle that climbs":    {anything, reference, "/tmp/none/../../etc", prefix},
		"bundle that has files": {anything, reference, "/etc", prefix},
	} {
		m := pullingMachine(t, host, c.policy)
		_, err := hubClient(t, m).PullImage(t.Context(), &cdh.ImagePullRequest{ImageUrl: c.image, BundlePath: c.bundle})
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	// Required and not to be had: refused before a byte is fetched.
	m := pullingMachine(t, host, anything)
	m.conf.EventLog.Require = true
	if _, err := hubClient(t, m).PullImage(t.Context(), &cdh.ImagePullRequest{ImageUrl: reference, BundlePath: "/tmp/none/x"}); err == nil {
		t.Error("pulled without the register that is required")
	}
	if left, err := os.ReadDir(m.conf.Image.Store); err != nil || len(left) > 0 {
		t.Errorf("the store holds %v, %v", left, err)
	}
}

// A policy that could not be fetched is fetched at the next call.
func TestPullImageReadsThePolicyAgain(t *testing.T) {
	host, reference, _ := pushed(t)
	broker := kbstest.Start()
	defer broker.Close()
	m := pullingMachine(t, host, "")
	m.conf.KBS = config.KBS{URL: broker.URL, PlainHTTP: true}
	m.conf.Image.PolicyURI = "kbs:///app/policy/1"
	client := hubClient(t, m)
	pull := func() error {
		_, err := client.PullImage(t.Context(), &cdh.ImagePullRequest{ImageUrl: reference, BundlePath: filepath.Join(t.TempDir(), "b")})
		return err
	}
	if err := pull(); err == nil || strings.Contains(err.Error(), "Denied by policy") {
		t.Errorf("the policy is not there: %v", err)
	}
	broker.Put("app/policy/1", []byte(`{"default":[{"type":"reject"}]}`))
	if err := pull(); err == nil || !strings.Contains(err.Error(), "Denied by policy") {
		t.Errorf("the policy rejects: %v", err)
	}
	if left, err := os.ReadDir(m.conf.Image.Store); err != nil || len(left) != 1 {
		t.Errorf("the store holds %v, %v: want one directory for all calls", left, err)
	}
}

func wantPulled(t *testing.T, m *machine, reference, digest string) {
	t.Helper()
	got, err := m.events.Entries()
	if want := fmt.Sprintf(`github.com/confidential-containers PullImage {"image":"%s", "digest":"%s"}`, reference, digest); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("the event log holds %q, %v, want %q", got, err, want)
	}
}
