// SPDX-License-Identifier: Apache-2.0

package keyprovider_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	kpconfig "github.com/containers/ocicrypt/config/keyprovider-config"
	client "github.com/containers/ocicrypt/keywrap/keyprovider"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/casemate/casemate/keyprovider"
	pb "github.com/casemate/casemate/keyprovider/keyproviderpb"
)

const keyID = "kbs:///default/image-kek/interop"

// fixedKey is a KeySource with one key.
type fixedKey []byte

func (k fixedKey) Key(context.Context, string) ([]byte, error) { return bytes.Clone(k), nil }

func start(t *testing.T, address string, service pb.KeyProviderServiceServer, log *slog.Logger) (target string) {
	t.Helper()
	l, err := keyprovider.Listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- keyprovider.Serve(ctx, l, service, log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if l.Addr().Network() == "unix" {
		return "unix://" + l.Addr().String()
	}
	return l.Addr().String()
}

// TestOcicryptClient encrypts and decrypts a layer with ocicrypt, whose own
// key-provider client asks our two services.
func TestOcicryptClient(t *testing.T) {
	t.Run("unix", func(t *testing.T) {
		roundTrip(t, func() string { return "unix:" + filepath.Join(t.TempDir(), "s") })
	})
	t.Run("loopback", func(t *testing.T) {
		roundTrip(t, func() string { return "127.0.0.1:0" })
	})
}

func roundTrip(t *testing.T, address func() string) {
	kek := make(fixedKey, keyprovider.KEKBytes)
	if _, err := rand.Read(kek); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	owner := start(t, address(), &keyprovider.WrapService{KeyID: keyID, Keys: kek}, log)
	register(owner)
	parameters := map[string][][]byte{keyprovider.ProviderName: {[]byte("keyid=" + keyID)}}
	layer := bytes.Repeat([]byte("layer"), 100_000)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(layer), MediaType: ocispec.MediaTypeImageLayer, Size: int64(len(layer))}
	reader, finish, err := ocicrypt.EncryptLayer(&config.EncryptConfig{Parameters: parameters}, bytes.NewReader(layer), desc)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if desc.Annotations, err = finish(); err != nil {
		t.Fatal(err)
	}

	// Our own reading of what the client stored ...
	packet, err := base64.StdEncoding.DecodeString(desc.Annotations[keyprovider.Annotation])
	if err != nil {
		t.Fatal(err)
	}
	unwrapper := &keyprovider.Unwrapper{Keys: kek}
	if _, err := unwrapper.Unwrap(t.Context(), packet); err != nil {
		t.Error(err)
	}

	// ... and the client's reading of what our guest service answers.
	guest := start(t, address(), &keyprovider.UnwrapService{Unwrapper: unwrapper, Log: log}, log)
	register(guest)
	plain, _, err := ocicrypt.DecryptLayer(&config.DecryptConfig{Parameters: parameters}, bytes.NewReader(encrypted), desc, false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(plain)
	if err != nil || !bytes.Equal(got, layer) {
		t.Errorf("got %d bytes, %v, want the %d of the layer", len(got), err, len(layer))
	}

	// Without its key the layer stays shut.
	register(start(t, address(), &keyprovider.UnwrapService{Unwrapper: &keyprovider.Unwrapper{Keys: make(fixedKey, keyprovider.KEKBytes)}, Log: log}, log))
	if _, _, err := ocicrypt.DecryptLayer(&config.DecryptConfig{Parameters: parameters}, bytes.NewReader(encrypted), desc, false); err == nil {
		t.Error("decrypted with another key")
	}
}

// register makes ocicrypt ask the key provider at target.
func register(target string) {
	ocicrypt.RegisterKeyWrapper("provider."+keyprovider.ProviderName,
		client.NewKeyWrapper(keyprovider.ProviderName, kpconfig.KeyProviderAttrs{Grpc: target}))
}
