// SPDX-License-Identifier: Apache-2.0

package services

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

func TestREST(t *testing.T) {
	server, broker := newBroker(t)
	server.Put("default/kek/1", []byte("not for the workload"))
	log := slog.New(slog.DiscardHandler)
	agent := &Agent{Evidence: sampleTEE{}, Log: log}
	paths := []string{"kbs:///default/key/1", "kbs:///default/gone/1"}
	all := &REST{Agent: agent, Resources: broker, Paths: paths, Version: "1", Log: log}
	resource := &REST{Resources: broker, Paths: paths, Log: log}
	attestation := &REST{Agent: agent, Log: log}
	bound, err := sampleTEE{}.Evidence(t.Context(), evidence.WorkloadReportData([]byte("a b")))
	if err != nil {
		t.Fatal(err)
	}
	device, err := sampleDevice{}.Evidence(t.Context(), evidence.WorkloadReportData([]byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	devices := &REST{Agent: &Agent{Evidence: sampleTEE{}, Devices: []Evidencer{sampleDevice{}}, Log: log}, Version: "1", Log: log}
	const peer = "127.0.0.1:5"
	for name, c := range map[string]struct {
		rest               *REST
		peer, method, path string
		body               string
		code               int
		want               string
	}{
		"info":                     {all, peer, "GET", "/info", "", 200, `{"version":"Guest Components Version: 1","tee":"sample","feature":"all"}`},
		"info without an agent":    {resource, peer, "GET", "/info", "", 200, `{"version":"Guest Components Version: ","feature":"resource"}`},
		"info by POST":             {all, peer, "POST", "/info", "", 405, "Method Not Allowed"},
		"resource":                 {all, peer, "GET", "/cdh/resource/default/key/1", "", 200, canary},
		"resource by POST":         {all, peer, "POST", "/cdh/resource/default/key/1?x=1", "", 200, canary},
		"resource over IPv6":       {all, "[::1]:5", "GET", "/cdh/resource/default/key/1", "", 200, canary},
		"key that is not listed":   {all, peer, "GET", "/cdh/resource/default/kek/1", "", 500, "get resource failed"},
		"listed, another spelling": {all, peer, "GET", "/cdh/resource/default/%6bey/1", "", 500, "get resource failed"},
		"climbing from a listed":   {all, peer, "GET", "/cdh/resource/default/key/1/../../kek/1", "", 500, "get resource failed"},
		"listed, not there":        {all, peer, "GET", "/cdh/resource/default/gone/1", "", 500, "get resource failed"},
		"peer in the network":      {all, "10.0.0.9:5", "GET", "/cdh/resource/default/key/1", "", 403, "Forbidden"},
		"peer without an address":  {all, "@", "GET", "/info", "", 403, "Forbidden"},
		"resources off":            {attestation, peer, "GET", "/cdh/resource/default/key/1", "", 404, "Resource Feature Not Enabled"},
		"attestation off":          {resource, peer, "GET", "/aa/evidence?runtime_data=x", "", 404, "Attestation Feature Not Enabled"},
		"evidence, plus is space":  {all, peer, "GET", "/aa/evidence?runtime_data=a+b", "", 200, string(bound)},
		"evidence, base64":         {all, peer, "GET", "/aa/evidence?runtime_data=YSBi&encoding=base64", "", 200, string(bound)},
		"evidence, bad base64":     {all, peer, "GET", "/aa/evidence?runtime_data=*&encoding=base64", "", 400, "BAD REQUEST"},
		"evidence, encoding":       {all, peer, "GET", "/aa/evidence?runtime_data=aa&encoding=hex", "", 400, "BAD REQUEST"},
		"evidence without data":    {all, peer, "GET", "/aa/evidence", "", 400, "BAD REQUEST"},
		"evidence by POST":         {all, peer, "POST", "/aa/evidence?runtime_data=x", "", 404, "URL NOT FOUND"},
		"additional evidence":      {all, peer, "GET", "/aa/additional-evidence?runtime_data=x", "", 200, ""},
		"evidence of a device":     {devices, peer, "GET", "/aa/additional-evidence?runtime_data=x", "", 200, `{"sampledevice":` + string(device) + `}`},
		"info with a device":       {devices, peer, "GET", "/info", "", 200, `{"version":"Guest Components Version: 1","tee":"sample","additional_tees":["sampledevice"],"feature":"attestation"}`},
		"token":                    {all, peer, "GET", "/aa/token?token_type=kbs", "", 500, "get token failed: not enabled"},
		"token without a type":     {all, peer, "GET", "/aa/token", "", 400, "BAD REQUEST"},
		"event":                    {all, peer, "POST", "/aa/aael", `{"domain":"d","operation":"o","content":"c"}`, 200, `{"success":"false","message":"runtime measurement is not enabled"}`},
		"event of the guest":       {all, peer, "POST", "/aa/aael", `{"domain":"github.com/confidential-containers","operation":"PullImage","content":"c"}`, 500, "extend runtime measurement failed"},
		"event, domain twice":      {all, peer, "POST", "/aa/aael", `{"domain":"d","domain":"e","operation":"o","content":"c"}`, 500, "extend runtime measurement failed: want JSON with domain, operation and content"},
		"event, no JSON":           {all, peer, "POST", "/aa/aael", `x`, 500, "extend runtime measurement failed: want JSON with domain, operation and content"},
		"unknown":                  {all, peer, "GET", "/", "", 404, "URL NOT FOUND"},
		"panic":                    {&REST{Resources: panicking{}, Paths: paths, Log: log}, peer, "GET", "/cdh/resource/default/key/1", "", 500, "internal error\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			r.RemoteAddr = c.peer
			w := httptest.NewRecorder()
			c.rest.ServeHTTP(w, r)
			if w.Code != c.code || w.Body.String() != c.want {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body.String(), c.code, c.want)
			}
		})
	}
}
