// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/ttrpc"

	aa "github.com/casemate/casemate/agent/api/attestation"
	cdh "github.com/casemate/casemate/agent/api/datahub"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/keyproviderpb"
)

const canary = "canary secret of thirty-two byte"

type sampleTEE struct{ err error }

func (sampleTEE) TEE() evidence.TEE { return evidence.Sample }

func (s sampleTEE) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	if s.err != nil {
		return nil, s.err
	}
	return evidence.SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
}

type panicking struct{}

func (panicking) Key(context.Context, string) ([]byte, error)    { panic(canary) }
func (panicking) Unseal(context.Context, []byte) ([]byte, error) { return nil, errors.New(canary) }

// dial serves on a socket and returns a client of it.
func dial(t *testing.T, serve func(context.Context, net.Listener) error) *ttrpc.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := keyprovider.ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		_ = client.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return client
}

func newBroker(t *testing.T) (*kbstest.Server, *kbs.Client) {
	t.Helper()
	server := kbstest.Start()
	t.Cleanup(server.Close)
	server.Put("default/key/1", []byte(canary))
	client, err := kbs.New(kbs.Config{URL: server.URL, AllowPlainHTTP: true, Attester: sampleTEE{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return server, client
}

func newHub(client *kbs.Client) *Hub {
	log := slog.New(slog.DiscardHandler)
	return &Hub{
		Resources: client, Sealed: &keyprovider.Unsealer{Keys: client}, Log: log,
		LayerKeys: &keyprovider.UnwrapService{Unwrapper: &keyprovider.Unwrapper{Keys: client}, Log: log},
	}
}

func TestManyCallersAttestOnce(t *testing.T) {
	server, broker := newBroker(t)
	client := cdh.NewTTRPCGetResourceServiceClient(dial(t, newHub(broker).Serve))
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			out, err := client.GetResource(t.Context(), &cdh.GetResourceRequest{ResourcePath: "kbs:///default/key/1"})
			if err != nil || string(out.Resource) != canary {
				t.Errorf("got %q, %v", out.GetResource(), err)
			}
		})
	}
	wg.Wait()
	if n := server.Count("POST attest"); n != 1 {
		t.Errorf("%d handshakes for 1000 calls, want 1", n)
	}
}

func TestLayerKeyOverTTRPC(t *testing.T) {
	_, broker := newBroker(t)
	client := keyproviderpb.NewTTRPCKeyProviderServiceClient(dial(t, newHub(broker).Serve))
	options, err := json.Marshal(map[string]any{
		"symkey": make([]byte, 32), "digest": "sha256:" + strings.Repeat("5e", 32),
		"cipheroptions": map[string][]byte{"nonce": make([]byte, 16)},
	})
	if err != nil {
		t.Fatal(err)
	}
	packet, err := keyprovider.Wrap([]byte(canary), "kbs:///default/key/1", options)
	if err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(map[string]any{"op": "keyunwrap", "keyunwrapparams": map[string]any{"annotation": packet}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.UnWrapKey(t.Context(), &keyproviderpb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: in})
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		Results struct {
			Options []uint16 `json:"optsdata"` // numbers, which []byte would not be
		} `json:"keyunwrapresults"`
	}
	if err := json.Unmarshal(out.KeyProviderKeyWrapProtocolOutput, &result); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, n := range result.Results.Options {
		got = append(got, byte(n))
	}
	if !bytes.Equal(got, options) {
		t.Errorf("got %q, want %q", got, options)
	}
	if _, err := client.WrapKey(t.Context(), &keyproviderpb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: in}); err == nil {
		t.Error("the guest wraps keys")
	}
}

func TestHubRefusals(t *testing.T) {
	_, broker := newBroker(t)
	hub, broken := dial(t, newHub(broker).Serve), newHub(broker)
	broken.Resources, broken.Sealed = panicking{}, panicking{}
	bad := dial(t, broken.Serve)
	get := func(c *ttrpc.Client, path string) error {
		_, err := cdh.NewTTRPCGetResourceServiceClient(c).GetResource(t.Context(), &cdh.GetResourceRequest{ResourcePath: path})
		return err
	}
	unseal := func(c *ttrpc.Client, text string) error {
		_, err := cdh.NewTTRPCSealedSecretServiceClient(c).UnsealSecret(t.Context(), &cdh.UnsealSecretInput{Secret: []byte(text)})
		return err
	}
	_, mount := cdh.NewTTRPCSecureMountServiceClient(hub).SecureMount(t.Context(), &cdh.SecureMountRequest{})
	mounting := newHub(broker)
	mounting.Mounts = noMounts{}
	_, refused := cdh.NewTTRPCSecureMountServiceClient(dial(t, mounting.Serve)).SecureMount(t.Context(), &cdh.SecureMountRequest{})
	_, pull := cdh.NewTTRPCImagePullServiceClient(hub).PullImage(t.Context(), &cdh.ImagePullRequest{ImageUrl: "x"})
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"resource that is not there": {get(hub, "kbs:///a/b/c"), "[CDH] [ERROR]: get resource failed"},
		"resource of a file":         {get(hub, "file:///etc/shadow"), "[CDH] [ERROR]: get resource failed"},
		"unsigned secret":            {unseal(hub, "sealed.fakejwsheader.e30.fakesignature"), "[CDH] [ERROR]: unseal secret failed"},
		"mount":                      {mount, "SecureMount is not supported"},
		"mount, with a secret":       {refused, "[CDH] [ERROR]: secure mount failed"},
		"pull":                       {pull, "Failed to pull image"},
		"panic":                      {get(bad, "kbs:///a/b/c"), "[CDH] [ERROR]: internal error"},
		"secret in the reason":       {unseal(bad, "x"), "[CDH] [ERROR]: unseal secret failed"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) || strings.Contains(c.err.Error(), canary) {
			t.Errorf("%s: got %v, want %q", name, c.err, c.want)
		}
	}
}

// noMounts fails with what no client may read.
type noMounts struct{}

func (noMounts) SecureMount(context.Context, string, map[string]string, []string, string) error {
	return errors.New(canary)
}

func TestAgent(t *testing.T) {
	client := aa.NewTTRPCAttestationAgentServiceClient(dial(t, (&Agent{Evidence: sampleTEE{}, Log: slog.New(slog.DiscardHandler)}).Serve))
	got, err := client.GetEvidence(t.Context(), &aa.GetEvidenceRequest{RuntimeData: []byte("nonce")})
	want, wantErr := sampleTEE{}.Evidence(t.Context(), evidence.WorkloadReportData([]byte("nonce")))
	if err != nil || wantErr != nil || string(got.Evidence) != string(want) {
		t.Errorf("evidence %s, %v, want the workload domain's %s", got.GetEvidence(), err, want)
	}
	if tee, err := client.GetTeeType(t.Context(), &aa.GetTeeTypeRequest{}); err != nil || tee.Tee != "sample" {
		t.Errorf("got %v, %v", tee, err)
	}
	for _, kind := range []string{"kbs", "coco_as", ""} {
		if token, err := client.GetToken(t.Context(), &aa.GetTokenRequest{TokenType: kind}); err == nil {
			t.Errorf("token %q was handed out: %v", kind, token)
		}
	}
	if _, err := client.BindInitData(t.Context(), &aa.BindInitDataRequest{}); err == nil || !strings.Contains(err.Error(), "is not supported") {
		t.Errorf("got %v", err)
	}
	for name, c := range map[string]struct {
		domain, operation, content string
		refused                    bool
	}{
		"of a workload":       {"example.com", "op", "content with spaces", false},
		"image pull, forged":  {"github.com/confidential-containers", "PullImage", "{}", true},
		"capitals":            {"GitHub.com/Confidential-Containers", "PullImage", "{}", true},
		"casemate":            {"casemate", "op", "x", true},
		"split by operation":  {"example.com", "a b", "x", true},
		"empty domain":        {"", "op", "x", true},
		"split by line break": {"example.com", "op", "x\ngithub.com/confidential-containers PullImage {}", true},
	} {
		out, err := client.ExtendRuntimeMeasurement(t.Context(), &aa.ExtendRuntimeMeasurementRequest{Domain: c.domain, Operation: c.operation, Content: c.content})
		if (err != nil) != c.refused || (err == nil && out.Result != aa.RuntimeMeasurementResult_NOT_ENABLED) {
			t.Errorf("%s: got %v, %v", name, out, err)
		}
	}
}

// sampleDevice attests beside the TEE.
type sampleDevice struct{ sampleTEE }

func (sampleDevice) TEE() evidence.TEE { return evidence.SampleDevice }

// What a workload gets of the devices is bound in its own domain, as the TEE's is.
func TestAdditionalEvidence(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	client := aa.NewTTRPCAttestationAgentServiceClient(dial(t, (&Agent{Evidence: sampleTEE{}, Devices: []Evidencer{sampleDevice{}}, Log: log}).Serve))
	in := &aa.GetAdditionalEvidenceRequest{RuntimeData: []byte("nonce")}
	got, err := client.GetAdditionalEvidence(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	want, err := sampleDevice{}.Evidence(t.Context(), evidence.WorkloadReportData(in.RuntimeData))
	if err != nil || string(got.Evidence) != `{"sampledevice":`+string(want)+`}` {
		t.Errorf("got %s, %v", got.Evidence, err)
	}
	if tees, err := client.GetAdditionalTees(t.Context(), &aa.GetAdditionalTeesRequest{}); err != nil || len(tees.AdditionalTees) != 1 || tees.AdditionalTees[0] != "sampledevice" {
		t.Errorf("devices %v, %v", tees, err)
	}

	none := aa.NewTTRPCAttestationAgentServiceClient(dial(t, (&Agent{Evidence: sampleTEE{}, Log: log}).Serve))
	if got, err := none.GetAdditionalEvidence(t.Context(), in); err != nil || len(got.Evidence) != 0 {
		t.Errorf("without devices: %q, %v", got.GetEvidence(), err)
	}
	broken := aa.NewTTRPCAttestationAgentServiceClient(dial(t, (&Agent{Evidence: sampleTEE{}, Devices: []Evidencer{sampleDevice{sampleTEE{errors.New(canary)}}}, Log: log}).Serve))
	if got, err := broken.GetAdditionalEvidence(t.Context(), in); err == nil || !strings.Contains(err.Error(), "get evidence failed") || strings.Contains(err.Error(), canary) {
		t.Errorf("a device that fails: %q, %v", got.GetEvidence(), err)
	}
	raw := &Agent{Evidence: sampleTEE{}, Devices: []Evidencer{sampleDevice{}}, Raw: true, Log: log}
	if got, err := raw.GetAdditionalEvidence(t.Context(), in); err != nil || !strings.Contains(string(got.Evidence), "bm9uY2U=") {
		t.Errorf("raw: %q, %v", got.GetEvidence(), err)
	}
	in.RuntimeData = make([]byte, maxRuntimeData+1)
	if _, err := client.GetAdditionalEvidence(t.Context(), in); err == nil {
		t.Error("more data than the limit is taken")
	}
}
