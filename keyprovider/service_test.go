// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/casemate/casemate/keyprovider/keyproviderpb"
)

// serve runs service on address until the test ends and returns where it
// listens and what it logs.
func serve(t testing.TB, address string, service pb.KeyProviderServiceServer) (target string, log *bytes.Buffer) {
	t.Helper()
	l, err := Listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	log = new(bytes.Buffer)
	logger := slog.New(slog.NewTextHandler(log, nil))
	if u, ok := service.(*UnwrapService); ok {
		u.Log = logger
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, service, logger) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	if l.Addr().Network() == "unix" {
		return "unix://" + l.Addr().String(), log
	}
	return l.Addr().String(), log
}

func dial(t testing.TB, target string) pb.KeyProviderServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewKeyProviderServiceClient(conn)
}

func unwrapInput(t testing.TB, packet []byte) *pb.KeyProviderKeyWrapProtocolInput {
	t.Helper()
	raw, err := json.Marshal(map[string]map[string][]byte{"keyunwrapparams": {"annotation": packet}})
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.Replace(raw, []byte("{"), []byte(`{"op":"keyunwrap",`), 1)
	return &pb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: raw}
}

func wrapInput(t testing.TB, plbco []byte, params string) *pb.KeyProviderKeyWrapProtocolInput {
	t.Helper()
	raw := fmt.Sprintf(`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"attestation-agent":[%q]},"DecryptConfig":{"Parameters":null}},"optsdata":%q}}`,
		b64(params), b64(string(plbco)))
	return &pb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: []byte(raw)}
}

func addresses(t *testing.T) map[string]string {
	return map[string]string{"unix": "unix:" + filepath.Join(t.TempDir(), "s"), "loopback": "127.0.0.1:0", "loopback 6": "[::1]:0"}
}

func TestServeUnwrap(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	v := readVectors(t)
	for name, address := range addresses(t) {
		t.Run(name, func(t *testing.T) {
			target, _ := serve(t, address, &UnwrapService{Unwrapper: &Unwrapper{Keys: oneKey(v.kek)}})
			out, err := dial(t, target).UnWrapKey(t.Context(), unwrapInput(t, v.packets["v2-gcm"]))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := out.KeyProviderKeyWrapProtocolOutput, encodeUnwrapOutput(v.options); !bytes.Equal(got, want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestServeWrap(t *testing.T) {
	v := readVectors(t)
	target, _ := serve(t, "127.0.0.1:0", &WrapService{KeyID: testKeyID, Keys: oneKey(v.kek)})
	for _, params := range []string{"", "keyid=" + testKeyID} {
		out, err := dial(t, target).WrapKey(t.Context(), wrapInput(t, v.options, params))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			KeyWrapResults struct {
				Annotation []byte `json:"annotation"`
			} `json:"keywrapresults"`
		}
		if err := json.Unmarshal(out.KeyProviderKeyWrapProtocolOutput, &answer); err != nil {
			t.Fatal(err)
		}
		u := Unwrapper{Keys: oneKey(v.kek)}
		got, err := u.Unwrap(t.Context(), answer.KeyWrapResults.Annotation)
		if err != nil || !bytes.Equal(got, v.options) {
			t.Errorf("got %q, %v, want %q", got, err, v.options)
		}
	}
}

// A guest has no WrapKey and an owner's tool no UnWrapKey.
func TestServeOneDirectionOnly(t *testing.T) {
	v := readVectors(t)
	guest, _ := serve(t, "127.0.0.1:0", &UnwrapService{Unwrapper: &Unwrapper{Keys: oneKey(v.kek)}})
	if _, err := dial(t, guest).WrapKey(t.Context(), wrapInput(t, v.options, "")); status.Code(err) != codes.Unimplemented {
		t.Errorf("WrapKey at a guest: %v, want %v", err, codes.Unimplemented)
	}
	owner, _ := serve(t, "127.0.0.1:0", &WrapService{KeyID: testKeyID, Keys: oneKey(v.kek)})
	if _, err := dial(t, owner).UnWrapKey(t.Context(), unwrapInput(t, v.packets["v1-gcm"])); status.Code(err) != codes.Unimplemented {
		t.Errorf("UnWrapKey at an owner: %v, want %v", err, codes.Unimplemented)
	}
}

type failingKeys struct{ err error }

func (k failingKeys) Key(context.Context, string) ([]byte, error) { return nil, k.err }

type panickingKeys struct{ value string }

func (k panickingKeys) Key(context.Context, string) ([]byte, error) { panic(k.value) }

const canary = "CANARY-7f3a"

// What a client is told is a code and a phrase; what the key source said goes
// to the log, and what panicked nowhere.
func TestServeUnwrapErrors(t *testing.T) {
	v := readVectors(t)
	for name, c := range map[string]struct {
		keys   KeySource
		packet string
		code   codes.Code
		phrase string
		logged bool
	}{
		"malformed packet": {oneKey(v.kek), `{}`, codes.InvalidArgument, "malformed annotation packet", true},
		"another provider": {oneKey(v.kek), `{"provider":"aliyun"}`, codes.FailedPrecondition, "another key provider", true},
		"no tag":           {oneKey(v.kek), string(v.packets["v1-ctr"]), codes.FailedPrecondition, "unauthenticated", true},
		"wrong key":        {oneKey(make([]byte, KEKBytes)), string(v.packets["v1-gcm"]), codes.PermissionDenied, "unwrapping layer options", true},
		"key refused":      {failingKeys{errors.New(canary)}, string(v.packets["v1-gcm"]), codes.Unavailable, "not released", true},
		"panic":            {panickingKeys{canary}, string(v.packets["v1-gcm"]), codes.Internal, "internal error", false},
	} {
		t.Run(name, func(t *testing.T) {
			target, log := serve(t, "127.0.0.1:0", &UnwrapService{Unwrapper: &Unwrapper{Keys: c.keys}})
			client := dial(t, target)
			_, err := client.UnWrapKey(t.Context(), unwrapInput(t, []byte(c.packet)))
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.phrase) {
				t.Errorf("got %v, want %v and %q", err, c.code, c.phrase)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the client is told %q", canary)
			}
			if log.Len() == 0 {
				t.Error("nothing is logged")
			}
			if strings.Contains(log.String(), canary) && !c.logged {
				t.Errorf("the log says %q: %s", canary, log)
			}
			// The server lives on.
			if _, err := client.UnWrapKey(t.Context(), unwrapInput(t, []byte(c.packet))); status.Code(err) != c.code {
				t.Errorf("second call: %v, want %v", err, c.code)
			}
		})
	}
}

func TestServeWrapErrors(t *testing.T) {
	v := readVectors(t)
	for name, c := range map[string]struct {
		keys   KeySource
		plbco  string
		params string
		code   codes.Code
		phrase string
	}{
		"another key id": {oneKey(v.kek), string(v.options), "keyid=kbs:///x/y/z", codes.InvalidArgument, "wraps with " + testKeyID},
		"keypath":        {oneKey(v.kek), string(v.options), "keypath=/etc/shadow", codes.InvalidArgument, "keypath is refused"},
		"sample":         {oneKey(v.kek), string(v.options), "sample=true", codes.InvalidArgument, "sample is refused"},
		"no options":     {oneKey(v.kek), `{"symkey":"` + canary + `"}`, "", codes.InvalidArgument, "no layer options"},
		"no key":         {failingKeys{errNoKey}, string(v.options), "", codes.Unavailable, errNoKey.Error()},
	} {
		target, _ := serve(t, "127.0.0.1:0", &WrapService{KeyID: testKeyID, Keys: c.keys})
		_, err := dial(t, target).WrapKey(t.Context(), wrapInput(t, []byte(c.plbco), c.params))
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.phrase) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: got %v, want %v and %q", name, err, c.code, c.phrase)
		}
	}
}

func TestServeRefusesOversizedMessages(t *testing.T) {
	target, _ := serve(t, "127.0.0.1:0", &UnwrapService{Unwrapper: &Unwrapper{Keys: &keyMap{}}})
	in := &pb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: make([]byte, 2*MaxInputBytes)}
	if _, err := dial(t, target).UnWrapKey(t.Context(), in); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want %v", err, codes.ResourceExhausted)
	}
}

type hangingKeys struct{}

func (hangingKeys) Key(ctx context.Context, _ string) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A hanging key source ends neither with the client's patience nor with the
// server: a call that is given up is cancelled, and Serve returns.
func TestServeEndsWithCallsInFlight(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	v := readVectors(t)
	l, err := ListenLoopback(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, l, &UnwrapService{Unwrapper: &Unwrapper{Keys: hangingKeys{}}, Log: log}, log)
	}()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := pb.NewKeyProviderServiceClient(conn)
	short, giveUp := context.WithTimeout(ctx, 50*time.Millisecond)
	defer giveUp()
	// Either side may notice the deadline first.
	_, err = client.UnWrapKey(short, unwrapInput(t, v.packets["v1-gcm"]))
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable {
		t.Errorf("got %v, want %v or %v", err, codes.DeadlineExceeded, codes.Unavailable)
	}
	called := make(chan struct{})
	go func() {
		defer close(called)
		_, _ = client.UnWrapKey(context.WithoutCancel(ctx), unwrapInput(t, v.packets["v1-gcm"]))
	}()
	time.Sleep(50 * time.Millisecond)
	cancel()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(stopTimeout + 5*time.Second):
		t.Fatal("the server does not end")
	}
	<-called
}

func TestServeWithAnEndedContext(t *testing.T) {
	l, err := ListenLoopback(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Serve(ctx, l, &UnwrapService{}, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the listener is still open")
	}
}

// BenchmarkUnWrapKey is one UnWrapKey call over a unix socket, 16 callers on a
// connection each, token and KEK cached.
func BenchmarkUnWrapKey(b *testing.B) {
	const callers = 16
	v := readVectors(b)
	keys := NewCache(oneKey(v.kek), &tokenText{token: "one"})
	target, _ := serve(b, "unix:"+filepath.Join(b.TempDir(), "s"), &UnwrapService{Unwrapper: &Unwrapper{Keys: keys}})
	in := unwrapInput(b, v.packets["v1-gcm"])
	calls := make(chan struct{})
	done := make(chan error, callers)
	for range callers {
		client := dial(b, target)
		go func() {
			for range calls {
				if _, err := client.UnWrapKey(b.Context(), in); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	b.ReportAllocs()
	for b.Loop() {
		calls <- struct{}{}
	}
	close(calls)
	for range callers {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "unwraps/s")
}

func BenchmarkUnwrap(b *testing.B) {
	v := readVectors(b)
	u := Unwrapper{Keys: NewCache(oneKey(v.kek), &tokenText{token: "one"})}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.Unwrap(b.Context(), v.packets["v1-gcm"]); err != nil {
			b.Fatal(err)
		}
	}
}
