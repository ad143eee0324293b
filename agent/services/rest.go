// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	strict "github.com/go-json-experiment/json"
	"golang.org/x/net/netutil"

	pb "github.com/casemate/casemate/agent/api/attestation"
)

const (
	resourcePrefix = "/cdh/resource/"
	// maxRESTHeader bounds the request line and headers, runtime_data with them.
	maxRESTHeader = 64 << 10
	maxEventBody  = 64 << 10
	// maxRESTConnections at once; those beyond wait in the kernel's queue.
	maxRESTConnections = 256
	restRead           = 10 * time.Second
)

// REST is api-server-rest. It is what containers reach, since they share the guest's
// network: only listed resources are served.
type REST struct {
	// Agent is an Agent or a RemoteAgent; nil switches the attestation routes off.
	Agent pb.TTRPCAttestationAgentServiceService
	// Resources serves what Paths lists; nil switches the resource route off.
	Resources Resources
	// Paths are the URIs (kbs:///repository/type/tag) that the workload may read.
	Paths []string
	// Token serves /aa/token. Containers then read every secret of the workload at the
	// relying party, listed here or not: only measured configuration may set it.
	Token bool
	// Version is what /info says.
	Version string
	// Log gets the reasons that clients are not told. Must not be nil.
	Log *slog.Logger

	turn turn // at Agent, which has other callers that containers must not crowd out
}

// Serve answers HTTP/1 on l, which it closes, until ctx is done.
func (s *REST) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s, MaxHeaderBytes: maxRESTHeader, ReadTimeout: restRead, WriteTimeout: callTimeout + restRead,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(limit) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(netutil.LimitListener(l, maxRESTConnections))
	if !stop() {
		<-stopped
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	}
	return nil
}

// ServeHTTP answers one request. Paths are compared as sent, without unescaping or
// cleaning, so a path has one spelling.
func (s *REST) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("REST call panicked", "type", fmt.Sprintf("%T", p))
			http.Error(w, internalError, http.StatusInternalServerError)
		}
	}()
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		answer(w, http.StatusForbidden, "Forbidden")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	path, query, _ := strings.Cut(r.RequestURI, "?")
	switch {
	case path == "/info":
		s.info(ctx, w, r)
	case strings.HasPrefix(path, resourcePrefix):
		s.resource(ctx, w, strings.TrimPrefix(path, resourcePrefix))
	case strings.HasPrefix(path, "/aa/") && s.Agent == nil:
		answer(w, http.StatusNotFound, "Attestation Feature Not Enabled")
	case strings.HasPrefix(path, "/aa/"):
		s.attestation(ctx, w, r, path, query)
	default:
		answer(w, http.StatusNotFound, "URL NOT FOUND")
	}
}

// attestation answers what the agent is asked for.
func (s *REST) attestation(ctx context.Context, w http.ResponseWriter, r *http.Request, path, query string) {
	switch {
	case path == "/aa/aael" && r.Method == http.MethodPost:
		s.extend(ctx, w, r)
	case path == "/aa/token" && r.Method == http.MethodGet:
		s.token(ctx, w, query)
	case path == "/aa/evidence" && r.Method == http.MethodGet:
		s.evidence(ctx, w, query, false)
	case path == "/aa/additional-evidence" && r.Method == http.MethodGet:
		s.evidence(ctx, w, query, true)
	default:
		answer(w, http.StatusNotFound, "URL NOT FOUND")
	}
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // a peer that left needs no answer
}

func answerBytes(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // a peer that left needs no answer
}

func (s *REST) fail(w http.ResponseWriter, err error) {
	s.Log.Warn("REST call failed", "error", err)
	answer(w, http.StatusInternalServerError, phrase(err))
}

func (s *REST) info(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		answer(w, http.StatusMethodNotAllowed, "Method Not Allowed")
		return
	}
	var info struct {
		Version    string   `json:"version"`
		TEE        string   `json:"tee,omitempty"`
		Additional []string `json:"additional_tees,omitempty"`
		Feature    string   `json:"feature"`
	}
	info.Version, info.Feature = "Guest Components Version: "+s.Version, "resource"
	if s.Agent != nil {
		tee, err := s.Agent.GetTeeType(ctx, &pb.GetTeeTypeRequest{})
		if err != nil {
			s.fail(w, &failure{"get TEE type failed", err})
			return
		}
		devices, err := s.Agent.GetAdditionalTees(ctx, &pb.GetAdditionalTeesRequest{})
		if err != nil {
			s.fail(w, &failure{"get TEE type failed", err})
			return
		}
		info.TEE, info.Additional, info.Feature = tee.Tee, devices.AdditionalTees, "all"
		if s.Resources == nil {
			info.Feature = "attestation"
		}
	}
	body, err := json.Marshal(info)
	if err != nil {
		s.fail(w, err)
		return
	}
	answerBytes(w, "application/json", body)
}

func (s *REST) resource(ctx context.Context, w http.ResponseWriter, path string) {
	if s.Resources == nil {
		answer(w, http.StatusNotFound, "Resource Feature Not Enabled")
		return
	}
	uri := "kbs:///" + path
	if !slices.Contains(s.Paths, uri) {
		s.fail(w, &failure{"get resource failed", fmt.Errorf("%.128q is not listed for the workload", uri)})
		return
	}
	secret, err := s.Resources.Key(ctx, uri)
	defer clear(secret)
	if err != nil {
		s.fail(w, &failure{"get resource failed", err})
		return
	}
	answerBytes(w, "application/octet-stream", secret)
}

func (s *REST) token(ctx context.Context, w http.ResponseWriter, query string) {
	values, err := url.ParseQuery(query)
	if err != nil || !values.Has("token_type") {
		answer(w, http.StatusBadRequest, "BAD REQUEST")
		return
	}
	if !s.Token {
		s.fail(w, &failure{"get token failed: not enabled", errNoToken})
		return
	}
	out, err := inTurn(ctx, &s.turn, func() (*pb.GetTokenResponse, error) {
		return s.Agent.GetToken(ctx, &pb.GetTokenRequest{TokenType: values.Get("token_type")})
	})
	if err != nil {
		s.fail(w, worded("get token failed", err))
		return
	}
	defer clear(out.Token)
	answerBytes(w, "application/octet-stream", out.Token)
}

func (s *REST) evidence(ctx context.Context, w http.ResponseWriter, query string, additional bool) {
	values, err := url.ParseQuery(query)
	if err != nil || !values.Has("runtime_data") {
		answer(w, http.StatusBadRequest, "BAD REQUEST")
		return
	}
	data := []byte(values.Get("runtime_data"))
	if values.Has("encoding") {
		data, err = base64.RawURLEncoding.Strict().DecodeString(string(data))
		if err != nil || values.Get("encoding") != "base64" {
			answer(w, http.StatusBadRequest, "BAD REQUEST")
			return
		}
	}
	out, err := inTurn(ctx, &s.turn, func() (*pb.GetEvidenceResponse, error) {
		if additional {
			return s.Agent.GetAdditionalEvidence(ctx, &pb.GetAdditionalEvidenceRequest{RuntimeData: data})
		}
		return s.Agent.GetEvidence(ctx, &pb.GetEvidenceRequest{RuntimeData: data})
	})
	if err != nil {
		s.fail(w, worded("get evidence failed", err))
		return
	}
	answerBytes(w, "application/octet-stream", out.Evidence)
}

// extend takes an event-log entry. Answers are 200 with booleans in strings, except for
// a body that cannot be read, as upstream's are.
func (s *REST) extend(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	var in struct {
		Domain    *string `json:"domain"`
		Operation *string `json:"operation"`
		Content   *string `json:"content"`
	}
	body := http.MaxBytesReader(w, r.Body, maxEventBody)
	if err := strict.UnmarshalRead(body, &in); err != nil || in.Domain == nil || in.Operation == nil || in.Content == nil {
		s.fail(w, &failure{"extend runtime measurement failed: want JSON with domain, operation and content", errors.Join(errors.New("reading the entry"), err)})
		return
	}
	out, err := inTurn(ctx, &s.turn, func() (*pb.ExtendRuntimeMeasurementResponse, error) {
		return s.Agent.ExtendRuntimeMeasurement(ctx, &pb.ExtendRuntimeMeasurementRequest{Domain: *in.Domain, Operation: *in.Operation, Content: *in.Content})
	})
	if err != nil {
		s.fail(w, worded("extend runtime measurement failed", err))
		return
	}
	text := `{"success":"true"}`
	switch out.Result {
	case pb.RuntimeMeasurementResult_OK:
	case pb.RuntimeMeasurementResult_NOT_ENABLED:
		text = `{"success":"false","message":"runtime measurement is not enabled"}`
	default:
		text = `{"success":"false","message":"runtime measurement is not supported"}`
	}
	answerBytes(w, "application/json", []byte(text))
}
