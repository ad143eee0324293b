// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs/kbstest"
)

func TestTranscripts(t *testing.T) {
	var got []Transcript
	attester := &sampleAttester{}
	server, client := newPair(t, func(c *Config) {
		c.Attester, c.InitData = attester, []byte("version = \"0.1.0\"\n")
		c.Transcript = func(t Transcript) { got = append(got, t) }
	})
	wantSecret(t, client)
	session := client.current
	if len(got) != 1 || got[0].Error != "" || got[0].Status != 0 || got[0].Micros <= 0 || got[0].KBS != server.URL {
		t.Fatalf("got %+v", got)
	}
	sent, err := evidence.ParseAttestation(got[0].Sent)
	if err != nil || string(sent.InitData) != "version = \"0.1.0\"\n" {
		t.Errorf("what was sent: %+v, %v", sent, err)
	}
	var claims map[string]any
	if err := json.Unmarshal(got[0].Claims, &claims); err != nil || claims["exp"] == nil {
		t.Errorf("claims %s, %v", got[0].Claims, err)
	}
	raw, err := got[0].Encode()
	if err != nil {
		t.Fatal(err)
	}
	key, err := session.key.export()
	if err != nil {
		t.Fatal(err)
	}
	signature := session.token[bytes.LastIndexByte(session.token, '.')+1:]
	cookie := session.jar.cookies[0].Value
	for what, secret := range map[string][]byte{"token": session.token, "signature": signature, "cookie": []byte(cookie), "key": key[64:96], "secret": []byte(secret)} {
		if bytes.Contains(raw, secret) {
			t.Errorf("the transcript holds the %s", what)
		}
	}
	back, err := ParseTranscript(raw)
	if err != nil || !bytes.Equal(back.Sent, got[0].Sent) || back.Micros != got[0].Micros || !back.Began.Equal(got[0].Began) {
		t.Errorf("read back as %+v, %v", back, err)
	}

	for name, c := range map[string]struct {
		mode   kbstest.Mode
		err    error
		status int
		detail string
		sent   bool
		count  int
	}{
		"denied":           {kbstest.AttestDenied, nil, 401, "RCAR handshake Attest failed", true, 1},
		"refused at once":  {kbstest.AuthDenied, nil, 401, "Version Mismatch", false, 1},
		"nobody answers":   {kbstest.Disconnect, nil, 0, "", false, maxAttempts},
		"no evidence":      {"", errors.New("firmware is silent"), 0, "", false, 1},
		"token of no form": {kbstest.BadToken, nil, 0, "", true, 1},
	} {
		got = nil
		attester.err = c.err
		server.Misbehave(c.mode)
		client.Close()
		if _, err := client.Token(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
		if len(got) != c.count {
			t.Errorf("%s: %d transcripts, want %d", name, len(got), c.count)
			continue
		}
		last := got[len(got)-1]
		if last.Error == "" || last.Status != c.status || !strings.Contains(last.Detail, c.detail) || (last.Sent != nil) != c.sent || last.Claims != nil {
			t.Errorf("%s: got %+v", name, last)
		}
	}
}

func FuzzTranscript(f *testing.F) {
	f.Add([]byte(`{"kbs":"https://k","began":"2026-01-01T00:00:00Z","took_us":5,"tee":"snp","error":"x"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := ParseTranscript(raw)
		if err != nil {
			return
		}
		if _, err := got.Encode(); err != nil {
			t.Skip("a year that has no text")
		}
	})
}
