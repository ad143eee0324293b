// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/containerd/ttrpc"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/casemate/casemate/agent/api/attestation"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/frames"
)

// Agent is the attestation agent's service.
type Agent struct {
	// Evidence must not be nil.
	Evidence Evidencer
	// Devices attest beside Evidence; nil is none.
	Devices []Evidencer
	// Raw binds evidence to the caller's bytes themselves, 1 to 64 of them, as upstream
	// does: a caller can then attest in the guest's name. Only measured configuration
	// may set it.
	Raw bool
	// Tokens serves GetToken of type kbs; nil refuses it. Only measured configuration
	// may ask for it: whoever gets the answer is this guest to the relying party.
	Tokens Tokens
	// Attested serves GetToken of type coco_as; nil refuses it. Only measured configuration
	// may name such a service: whoever reads the answer can show it as his.
	Attested Attested
	// Events takes entries of the event log; nil keeps none.
	Events Measurer
	// Log gets the reasons that clients are not told. Must not be nil.
	Log *slog.Logger

	turn turn // at Evidence and Events
}

// Serve answers on l, which it closes, until ctx is done. l decides who may connect.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	return serveTTRPC(ctx, l, "[AA] [ERROR]: ", a.Log, map[string]map[string]ttrpc.Method{
		"attestation_agent.AttestationAgentService": {
			"BindInitData":             frames.Unary(a.BindInitData),
			"ExtendRuntimeMeasurement": frames.Unary(a.ExtendRuntimeMeasurement),
			"GetAdditionalEvidence":    frames.Unary(a.GetAdditionalEvidence),
			"GetAdditionalTees":        frames.Unary(a.GetAdditionalTees),
			"GetEvidence":              frames.Unary(a.GetEvidence),
			"GetTeeType":               frames.Unary(a.GetTeeType),
			"GetToken":                 frames.Unary(a.GetToken),
		},
	})
}

// GetEvidence binds evidence to data of the caller's choice, in the domain of
// workloads (evidence.WorkloadReportData) unless Raw is set.
func (a *Agent) GetEvidence(ctx context.Context, in *pb.GetEvidenceRequest) (*pb.GetEvidenceResponse, error) {
	bound, err := a.bind(in.RuntimeData)
	if err != nil {
		return nil, err
	}
	out, err := inTurn(ctx, &a.turn, func() (json.RawMessage, error) { return a.Evidence.Evidence(ctx, bound) })
	if err != nil {
		return nil, &failure{"get evidence failed", err}
	}
	return &pb.GetEvidenceResponse{Evidence: out}, nil
}

// bind is what evidence for the caller's data is bound to.
func (a *Agent) bind(data []byte) (bound evidence.ReportData, err error) {
	switch {
	case len(data) > maxRuntimeData:
		err = fmt.Errorf("%d bytes of runtime data, want at most %d", len(data), maxRuntimeData)
	case a.Raw:
		bound, err = evidence.RawReportData(data)
	default:
		bound = evidence.WorkloadReportData(data)
	}
	if err != nil {
		return bound, &failure{"get evidence failed", err}
	}
	return bound, nil
}

// GetAdditionalEvidence binds the evidence of the devices as GetEvidence binds the TEE's. It
// returns a JSON object with a member for each, no bytes at all without devices.
func (a *Agent) GetAdditionalEvidence(ctx context.Context, in *pb.GetAdditionalEvidenceRequest) (*pb.GetEvidenceResponse, error) {
	bound, err := a.bind(in.RuntimeData)
	if err != nil {
		return nil, err
	}
	text, err := inTurn(ctx, &a.turn, func() (string, error) { return evidence.GatherAdditional(ctx, a.Devices, bound) })
	if err != nil {
		return nil, &failure{"get evidence failed", err}
	}
	return &pb.GetEvidenceResponse{Evidence: []byte(text)}, nil
}

// errNoToken refuses GetToken: upstream's answer carries the private TEE key.
var errNoToken = errors.New("tokens for other processes are not served")

// GetToken returns a token with its private key, {"token":"JWT","tee_keypair":"PEM"},
// where Tokens is set, and of type coco_as the JWT alone, where Attested is.
func (a *Agent) GetToken(ctx context.Context, in *pb.GetTokenRequest) (*pb.GetTokenResponse, error) {
	switch in.TokenType {
	case "kbs":
		return a.kbsToken(ctx)
	case "coco_as":
		return a.cocoToken(ctx)
	}
	return nil, &failure{"get token failed: token type is not served", fmt.Errorf("token type %.32q, want kbs or coco_as", in.TokenType)}
}

func (a *Agent) cocoToken(ctx context.Context) (*pb.GetTokenResponse, error) {
	if a.Attested == nil {
		return nil, &failure{"get token failed: not enabled", errNoToken}
	}
	token, err := a.Attested.Token(ctx)
	if err != nil {
		return nil, &failure{"get token failed", err}
	}
	return &pb.GetTokenResponse{Token: token}, nil
}

func (a *Agent) kbsToken(ctx context.Context) (*pb.GetTokenResponse, error) {
	if a.Tokens == nil {
		return nil, &failure{"get token failed: not enabled", errNoToken}
	}
	token, key, err := a.Tokens.Token(ctx)
	defer clear(token)
	defer clear(key)
	if err != nil {
		return nil, &failure{"get token failed", err}
	}
	out := append(make([]byte, 0, len(token)+2*len(key)+64), `{"token":`...)
	if out, err = jsontext.AppendQuote(out, token); err != nil {
		return nil, &failure{"get token failed", errors.New("the token is not text")}
	}
	out = append(out, `,"tee_keypair":`...)
	if out, err = jsontext.AppendQuote(out, key); err != nil {
		return nil, &failure{"get token failed", errors.New("the key is not text")}
	}
	return &pb.GetTokenResponse{Token: append(out, '}')}, nil
}

// closedDomain reports domains that verifiers read as the guest's own words.
func closedDomain(domain string) bool {
	domain = strings.ToLower(domain)
	return domain == "github.com/confidential-containers" || domain == "casemate" || strings.HasPrefix(domain, "casemate.") ||
		strings.HasPrefix(domain, "casemate/") || strings.HasPrefix(domain, "github.com/casemate")
}

// ExtendRuntimeMeasurement records an entry of another program. It refuses entries that
// only the guest itself could make, that would be two entries to a reader, or that would
// go into the firmware's registers. NOT_SUPPORTED says that the entry was recorded and
// that no register holds it.
func (a *Agent) ExtendRuntimeMeasurement(ctx context.Context, in *pb.ExtendRuntimeMeasurementRequest) (*pb.ExtendRuntimeMeasurementResponse, error) {
	err := checkEvent(in.Domain, in.Operation, in.Content)
	if err == nil {
		err = checkRegister(in.RegisterIndex)
	}
	if err != nil {
		return nil, &failure{"extend runtime measurement failed", err}
	}
	if a.Events == nil {
		return &pb.ExtendRuntimeMeasurementResponse{Result: pb.RuntimeMeasurementResult_NOT_ENABLED}, nil
	}
	bound, err := inTurn(ctx, &a.turn, func() (bool, error) { return a.Events.MeasureFor(in.Domain, in.Operation, in.Content) })
	if err != nil {
		return nil, &failure{"extend runtime measurement failed", err}
	}
	result := pb.RuntimeMeasurementResult_OK
	if !bound {
		result = pb.RuntimeMeasurementResult_NOT_SUPPORTED
	}
	return &pb.ExtendRuntimeMeasurementResponse{Result: result}, nil
}

// checkRegister refuses the PCR numbers that upstream maps to RTMR0 to RTMR2: extending
// those would make the guest's firmware and kernel look like others.
func checkRegister(index *uint64) error {
	if index != nil && *index >= 1 && *index <= 15 {
		return fmt.Errorf("register %d is the firmware's and the kernel's", *index)
	}
	return nil
}

func checkEvent(domain, operation, content string) error {
	switch {
	case closedDomain(domain):
		return fmt.Errorf("event-log domain %.64q is the guest's own", domain)
	case domain == "" || strings.ContainsAny(domain, " \t\r\n"):
		return errors.New("domain of an event-log entry is empty or holds white space")
	case operation == "" || strings.ContainsAny(operation, " \t\r\n"):
		return errors.New("operation of an event-log entry is empty or holds white space")
	case strings.ContainsAny(content, "\r\n"):
		return errors.New("content of an event-log entry holds a line break")
	}
	return nil
}

// BindInitData is not served over ttrpc upstream either: initdata is bound at start.
func (a *Agent) BindInitData(context.Context, *pb.BindInitDataRequest) (*pb.BindInitDataResponse, error) {
	return nil, status.Error(codes.NotFound, "/attestation_agent.AttestationAgentService/BindInitData is not supported")
}

// GetTeeType names the TEE.
func (a *Agent) GetTeeType(context.Context, *pb.GetTeeTypeRequest) (*pb.GetTeeTypeResponse, error) {
	return &pb.GetTeeTypeResponse{Tee: string(a.Evidence.TEE())}, nil
}

// GetAdditionalTees names the devices.
func (a *Agent) GetAdditionalTees(context.Context, *pb.GetAdditionalTeesRequest) (*pb.GetAdditionalTeesResponse, error) {
	out := &pb.GetAdditionalTeesResponse{}
	for _, device := range a.Devices {
		out.AdditionalTees = append(out.AdditionalTees, string(device.TEE()))
	}
	return out, nil
}
