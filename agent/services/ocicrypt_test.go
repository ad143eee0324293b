// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/ttrpc"
	"github.com/containers/ocicrypt"
	ocicryptconfig "github.com/containers/ocicrypt/config"
	kpconfig "github.com/containers/ocicrypt/config/keyprovider-config"
	client "github.com/containers/ocicrypt/keywrap/keyprovider"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/keyproviderpb"
)

const relayVariable = "SERVICES_TEST_RELAY"

// TestTTRPCRelay is no test: ocicrypt starts it as its key-provider command. The library
// speaks gRPC and to commands itself, so that its bytes reach a ttrpc socket through a
// command that passes them on as they are.
func TestTTRPCRelay(t *testing.T) {
	socket := os.Getenv(relayVariable)
	if socket == "" {
		t.Skip("only a helper of TestOcicryptClientOverTTRPC")
	}
	os.Exit(relay(socket))
}

func relay(socket string) int {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 2
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 3
	}
	c := keyproviderpb.NewTTRPCKeyProviderServiceClient(ttrpc.NewClient(conn))
	call := c.UnWrapKey
	if bytes.Contains(in, []byte(`"op":"keywrap"`)) {
		call = c.WrapKey
	}
	out, err := call(context.Background(), &keyproviderpb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: in})
	if err != nil {
		return 4
	}
	if _, err := os.Stdout.Write(out.KeyProviderKeyWrapProtocolOutput); err != nil {
		return 5
	}
	return 0
}

type canaryKey struct{}

func (canaryKey) Key(context.Context, string) ([]byte, error) { return []byte(canary), nil }

// socketOf serves on a unix socket and returns its path.
func socketOf(t *testing.T, serve func(context.Context, net.Listener) error) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := keyprovider.ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

// TestOcicryptClientOverTTRPC: ocicrypt's own client encrypts a layer with the owner's
// service and decrypts it with the data hub's, both over ttrpc. The hub wraps nothing.
func TestOcicryptClientOverTTRPC(t *testing.T) {
	_, broker := newBroker(t)
	hub := socketOf(t, newHub(broker).Serve)
	wrapper := &keyprovider.WrapService{KeyID: "kbs:///default/key/1", Keys: canaryKey{}}
	log := slog.New(slog.DiscardHandler)
	owner := socketOf(t, func(ctx context.Context, l net.Listener) error {
		return serveTTRPC(ctx, l, "", log, map[string]map[string]ttrpc.Method{"keyprovider.KeyProviderService": keyMethods(wrapper)})
	})
	ask := func(socket string) {
		t.Setenv(relayVariable, socket)
		ocicrypt.RegisterKeyWrapper("provider."+keyprovider.ProviderName, client.NewKeyWrapper(keyprovider.ProviderName,
			kpconfig.KeyProviderAttrs{Command: &kpconfig.Command{Path: os.Args[0], Args: []string{"-test.run=^TestTTRPCRelay$"}}}))
	}
	parameters := map[string][][]byte{keyprovider.ProviderName: {[]byte("keyid=kbs:///default/key/1")}}
	layer := bytes.Repeat([]byte("layer"), 100_000)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(layer), MediaType: ocispec.MediaTypeImageLayer, Size: int64(len(layer))}
	encrypt := func() ([]byte, func() (map[string]string, error)) {
		reader, finish, err := ocicrypt.EncryptLayer(&ocicryptconfig.EncryptConfig{Parameters: parameters}, bytes.NewReader(layer), desc)
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		return out, finish
	}
	ask(hub)
	if _, finish := encrypt(); finish != nil {
		if _, err := finish(); err == nil {
			t.Error("the guest's hub wrapped a key")
		}
	}
	ask(owner)
	encrypted, finish := encrypt()
	var err error
	if desc.Annotations, err = finish(); err != nil {
		t.Fatal(err)
	}
	ask(hub)
	plain, _, err := ocicrypt.DecryptLayer(&ocicryptconfig.DecryptConfig{Parameters: parameters}, bytes.NewReader(encrypted), desc, false)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(plain); err != nil || !bytes.Equal(got, layer) {
		t.Errorf("got %d bytes, %v, want the %d of the layer", len(got), err, len(layer))
	}
}
