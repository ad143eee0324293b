// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/agent/services"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/vault/vaulttest"
)

func testMachine(c config.Measured) *machine {
	return &machine{conf: c, steps: steps{w: io.Discard}, log: slog.New(slog.DiscardHandler)}
}

func TestServePartsFollowConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		conf config.Measured
		want string
	}{
		"nothing":  {config.Measured{}, ""},
		"data hub": {config.Measured{Services: config.Services{DataHub: "unix:///run/a"}}, "data hub"},
		"all": {config.Measured{KeyProvider: config.KeyProvider{Listen: "unix:///run/k"}, Services: config.Services{
			AttestationAgent: "unix:///run/a", DataHub: "unix:///run/b", REST: "127.0.0.1:8006",
		}}, "key provider, attestation agent, data hub, REST"},
	} {
		var names []string
		for _, p := range testMachine(c.conf).parts(nil, nil, nil, &services.Hub{}) {
			names = append(names, p.name)
		}
		if got := strings.Join(names, ", "); got != c.want {
			t.Errorf("%s: serves %q, want %q", name, got, c.want)
		}
	}
}

// A second server on the same sockets must say which are taken, serve nothing and
// leave the first one alone.
func TestServeOnSocketsThatAreTaken(t *testing.T) {
	dir := t.TempDir()
	address := func(name string) string { return "unix://" + filepath.Join(dir, "sub", name) }
	taken, err := listen(t.Context(), address("taken"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	serve := func(context.Context, net.Listener) error {
		t.Error("served although a socket was taken")
		return nil
	}
	err = testMachine(config.Measured{}).serveParts(t.Context(), []part{
		{"free one", address("free"), serve}, {"taken one", address("taken"), serve},
	})
	if err == nil || !strings.Contains(err.Error(), "taken one") || !strings.Contains(err.Error(), "another process listens") {
		t.Fatalf("got %v", err)
	}
	if l, err := net.Dial("unix", filepath.Join(dir, "sub", "free")); err == nil {
		_ = l.Close()
		t.Error("the free socket stayed open")
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "sub", "taken"))
	if err != nil {
		t.Fatalf("the first server's socket is gone: %v", err)
	}
	_ = conn.Close()
}

// sampleTEE signs nothing; kbstest believes it.
type sampleTEE struct{}

func (sampleTEE) TEE() evidence.TEE { return evidence.Sample }

func (sampleTEE) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	return evidence.SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
}

// What lets a caller be this guest is off unless measured configuration asks for it.
func TestAgentFollowsItsSwitches(t *testing.T) {
	for name, c := range map[string]struct {
		conf       config.Measured
		token, raw bool
		wantErr    bool
	}{
		"nothing": {conf: config.Measured{KBS: config.KBS{URL: "http://kbs", PlainHTTP: true}}},
		"both": {
			conf:  config.Measured{KBS: config.KBS{URL: "http://kbs", PlainHTTP: true}, Services: config.Services{GetToken: true, RawEvidence: true}},
			token: true, raw: true,
		},
		"tokens without a KBS": {conf: config.Measured{Services: config.Services{GetToken: true}}, wantErr: true},
	} {
		m := testMachine(c.conf)
		m.attester = sampleTEE{}
		agent, stop, err := m.agent()
		if (err != nil) != c.wantErr {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		stop()
		if (agent.Tokens != nil) != c.token || agent.Raw != c.raw {
			t.Errorf("%s: tokens %v, raw %v", name, agent.Tokens != nil, agent.Raw)
		}
	}
}

// The vault's token is a secret of the relying party, asked for by its configured name.
func TestUnsealerOfTheConfiguredVault(t *testing.T) {
	server := vaulttest.Start()
	defer server.Close()
	server.Put("app/db", map[string]any{"password": "hunter2"})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := keyprovider.VerificationKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text, err := keyprovider.SealStored(key, "kbs:///app/signing/1", "vault", "app/db", []byte("{}"), []byte(`{"field":"password"}`))
	if err != nil {
		t.Fatal(err)
	}
	broker := kbstest.Start()
	defer broker.Close()
	broker.Put("app/signing/1", jwk)
	client, err := kbs.New(kbs.Config{URL: broker.URL, AllowPlainHTTP: true, Attester: sampleTEE{}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	unseal := func(v config.Vault) (string, error) {
		u, err := testMachine(config.Measured{Vault: v}).unsealer(client)
		if err != nil {
			return "", err
		}
		secret, err := u.Unseal(t.Context(), text)
		return string(secret), err
	}
	conf := config.Vault{URL: server.URL, Cert: string(server.PEM), TokenURI: "kbs:///app/vault/token"}
	if got, err := unseal(conf); err == nil {
		t.Errorf("without a token: %q", got)
	}
	broker.Put("app/vault/token", []byte(vaulttest.Token))
	if got, err := unseal(conf); err != nil || got != "hunter2" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := unseal(config.Vault{}); err == nil {
		t.Errorf("no vault is configured: %q", got)
	}
	conf.Cert = "no PEM"
	if got, err := unseal(conf); err == nil || !strings.Contains(err.Error(), "vault.cert") {
		t.Errorf("got %q, %v", got, err)
	}
}

// A sealing key of measured configuration verifies without the relying party; one that is no key ends the start.
func TestUnsealerWithMeasuredKeys(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := keyprovider.VerificationKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	u, err := testMachine(config.Measured{SealedKeys: map[string]string{"owner": string(jwk)}}).unsealer(noKBS{})
	if err != nil || !key.PublicKey.Equal(u.Measured["owner"]) {
		t.Errorf("got %v, %v", u, err)
	}
	for name, conf := range map[string]config.Measured{
		"sealed_keys": {SealedKeys: map[string]string{"owner": "{}"}},
		"aws.cert":    {AWS: config.AWS{Region: "eu-central-1", Cert: "no PEM", CredentialURI: "kbs:///a/b/c"}},
	} {
		if _, err := testMachine(conf).unsealer(noKBS{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
