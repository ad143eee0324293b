// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	aa "github.com/casemate/casemate/agent/api/attestation"
	"github.com/casemate/casemate/agent/evidence"
)

// slowTEE makes evidence when its channel says so.
type slowTEE struct{ release chan struct{} }

func (slowTEE) TEE() evidence.TEE { return evidence.Sample }

func (s slowTEE) Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error) {
	select {
	case <-s.release:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return evidence.SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
}

// requestFrame is a ttrpc frame by PROTOCOL.md: length, stream, type, flags, message.
func requestFrame(t *testing.T, id uint32, method string) []byte {
	t.Helper()
	payload, err := proto.Marshal(&aa.GetEvidenceRequest{RuntimeData: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	body, err := proto.Marshal(&ttrpc.Request{Service: "attestation_agent.AttestationAgentService", Method: method, Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	return append(frameHead(len(body), id, 1), body...)
}

func frameHead(size int, id uint32, kind byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(size))
	return append(binary.BigEndian.AppendUint32(b, id), kind, 0)
}

// A caller of a socket sends what no client sends. Its connection ends, and the process, which may be the guest's
// only one, does not.
func TestHostileFramesEndOneConnection(t *testing.T) {
	agent := &Agent{Evidence: slowTEE{make(chan struct{})}, Log: slog.New(slog.DiscardHandler)}
	path := socketOf(t, agent.Serve)
	waiting := requestFrame(t, 1, "GetEvidence")
	for name, bytes := range map[string][]byte{
		"data for a call that takes no stream": append(waiting[:len(waiting):len(waiting)], frameHead(0, 1, 3)...),
		"data out of nowhere":                  append(frameHead(4, 1, 3), "1234"...),
		"a stream used twice":                  append(waiting[:len(waiting):len(waiting)], waiting...),
		"not ttrpc":                            []byte("GET / HTTP/1.1\r\nHost: guest\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection was not ended: %v", err)
			}
			good, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			client := ttrpc.NewClient(good)
			defer client.Close()
			if _, err := aa.NewTTRPCAttestationAgentServiceClient(client).GetTeeType(t.Context(), &aa.GetTeeTypeRequest{}); err != nil {
				t.Errorf("the next caller: %v", err)
			}
		})
	}
}
