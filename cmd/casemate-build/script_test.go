// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containers/ocicrypt/blockcipher"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/keyprovider"
	pb "github.com/casemate/casemate/keyprovider/keyproviderpb"
	"github.com/casemate/casemate/rootfs/cpio"
	rootfs "github.com/casemate/casemate/rootfs/image"
	"github.com/casemate/casemate/rootfs/measure/measuretest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"casemate-build": main})
}

// TestScripts runs the scripts of testdata/script: command lines as a user
// types them and what must come of them.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"registry":  startRegistry,
			"keybroker": startKeybroker,
			"mkimage":   makeImage,
			"mkindex":   makeIndex,
			"opens":     opens,
			"listed":    listed,
			"wraps":     wraps,
			"waitfor":   waitFor,
			"mode":      fileMode,
			"exits":     exits,
			"fill":      fill,
			"registers": registers,
			"refuses":   refuses,
		},
	})
}

// setup puts keys and a program into the script's directory: txtar files end with a
// line end, which raw keys must not.
func setup(e *testscript.Env) error {
	protected, err := os.ReadFile("internal/cosign/testdata/cosign-protected.key")
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"kek": "0123456789abcdef0123456789abcdef", "other": strings.Repeat("k", keyprovider.KEKBytes), "protected.key": string(protected),
		"program": program(),
	} {
		if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	firmware, err := os.ReadFile("../../rootfs/measure/testdata/snp/ovmf_AmdSev_suffix.bin")
	if err != nil {
		return err
	}
	mark, err := debugMark()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"snp.fd": firmware, "tdx.fd": measuretest.TDVF(measuretest.TDVFSections()...), "ccel": eventLog(), "vmlinuz": measuretest.Kernel("kernel"), "ovmf.fd": measuretest.OVMF("pei", "dxe"), "ovmf2.fd": measuretest.OVMF("pei", "dxf"), "ovmf.log": firmwareLog("pei", "dxe"), "krunfw.so": measuretest.KrunLibrary(measuretest.KrunSymbols("kernel", "initrd")...), "krunfw2.so": measuretest.KrunLibrary(measuretest.KrunSymbols("kernel", "another")...), "debugfw.so": measuretest.KrunLibrary(measuretest.KrunSymbols("kernel", string(mark))...), "uki.efi": measuretest.UKI("kernel", "quiet", "initrd"), "uki2.efi": measuretest.UKI("kernel", "debug", "initrd"), "debug.initrd": mark, "debug.efi": measuretest.UKI("kernel", "quiet", string(mark))} {
		if err := os.WriteFile(filepath.Join(e.WorkDir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// debugMark is the beginning of a debug guest's initramfs.
func debugMark() ([]byte, error) {
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	err := errors.Join(w.File(rootfs.DebugMark, 0o644, 1, strings.NewReader("x")), w.Close())
	return b.Bytes(), err
}

// eventLog is a CCEL in which one digest, of 48 bytes 0x11, went into RTMR 0.
func eventLog() []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), make([]byte, 16)...)
	log := le.AppendUint32(le.AppendUint32(nil, 1), 3)
	log = append(le.AppendUint32(append(log, make([]byte, 20)...), uint32(len(spec))), spec...)
	log = le.AppendUint32(le.AppendUint32(le.AppendUint32(log, 1), 4), 1)
	log = append(le.AppendUint16(log, 0x0c), bytes.Repeat([]byte{0x11}, 48)...)
	return le.AppendUint32(log, 0)
}

// firmwareLog is a TPM's log of a boot of measuretest.OVMF, which measured the first
// volume as the machine made it.
func firmwareLog(pei, dxe string) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), make([]byte, 16)...)
	log := le.AppendUint32(le.AppendUint32(nil, 0), 3)
	log = append(le.AppendUint32(append(log, make([]byte, 20)...), uint32(len(spec))), spec...)
	event := func(index, kind uint32, measured, data []byte) {
		log = le.AppendUint32(le.AppendUint32(le.AppendUint32(log, index), kind), 2)
		small, large := sha256.Sum256(measured), sha512.Sum384(measured)
		log = append(le.AppendUint16(log, 0x0b), small[:]...)
		log = append(le.AppendUint16(log, 0x0c), large[:]...)
		log = append(le.AppendUint32(log, uint32(len(data))), data...)
	}
	blob := func(volume []byte) []byte { return le.AppendUint64(make([]byte, 8), uint64(len(volume))) }
	first, second := measuretest.Volume([]byte(pei)), measuretest.Volume([]byte(dxe))
	event(0, 8, []byte{0, 0}, []byte{0, 0})
	event(0, 0x80000008, append([]byte("512 MiB"), first...), blob(first))
	event(0, 0x80000008, second, blob(second))
	event(7, 4, make([]byte, 4), make([]byte, 4))
	event(0, 4, make([]byte, 4), make([]byte, 4))
	return log
}

// registers FILE...: the files, one after the other, are a registration.
func registers(ts *testscript.TestScript, refused bool, args []string) {
	var text strings.Builder
	for _, name := range args {
		text.WriteString(ts.ReadFile(name))
	}
	r, err := owner.ParseTOML([]byte(text.String()))
	if refused && err != nil {
		fmt.Fprintln(ts.Stderr(), err)
		return
	}
	if refused {
		ts.Fatalf("registered, want a refusal")
	}
	ts.Check(err)
	if r.SNP != nil {
		fmt.Fprintf(ts.Stdout(), "%d snp measurements\n", len(r.SNP.Measurements))
	}
	if r.TDX != nil {
		fmt.Fprintf(ts.Stdout(), "%d tdx measurements, %d RTMR1, %d RTMR2\n", len(r.TDX.Measurements), len(r.TDX.RTMR1), len(r.TDX.RTMR2))
	}
}

// refuses FILE...: the files, one after the other, are no registration. The reason goes to
// stdout.
func refuses(ts *testscript.TestScript, _ bool, args []string) {
	var text strings.Builder
	for _, name := range args {
		text.WriteString(ts.ReadFile(name))
	}
	_, err := owner.ParseTOML([]byte(text.String()))
	if err == nil {
		ts.Fatalf("the registration is taken")
	}
	fmt.Fprintln(ts.Stdout(), err)
}

// program is the smallest static ELF file: a header, for x86-64, of 64 bytes.
func program() string {
	return "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\x3e\x00\x01" + strings.Repeat("\x00", 31) +
		"\x40\x00\x38\x00\x00\x00\x40" + strings.Repeat("\x00", 5)
}

// registry [readonly]: an empty registry at $REGISTRY.
func startRegistry(ts *testscript.TestScript, _ bool, args []string) {
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if len(args) > 0 {
		handler = readOnly(handler)
	}
	s := httptest.NewServer(handler)
	ts.Defer(s.Close)
	ts.Setenv("REGISTRY", strings.TrimPrefix(s.URL, "http://"))
}

// keybroker [deny]: a stand-in for the keybroker's owner API at $KEYBROKER,
// with its certificate in ca.pem and its token in token. Its secrets are files
// in secrets/.
func startKeybroker(ts *testscript.TestScript, _ bool, args []string) {
	k := &fakeKeybroker{dir: ts.MkAbs("secrets"), token: "owner-token", deny: len(args) > 0}
	ts.Check(os.MkdirAll(k.dir, 0o700))
	s := httptest.NewUnstartedServer(k)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	ts.Defer(s.Close)
	ts.Setenv("KEYBROKER", s.URL)
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), certificatePEM(s), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("token"), []byte(k.token+"\n"), 0o600))
}

func layerContent(i int) string { return fmt.Sprintf("content of layer %d", i) }

func newImage(layers int) (v1.Image, error) {
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	for i := range layers {
		var err error
		if img, err = mutate.AppendLayers(img, static.NewLayer([]byte(layerContent(i)), types.OCILayer)); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// newTarImage has archives for layers.
func newTarImage(layers int) (v1.Image, error) {
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	for i := range layers {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		err := errors.Join(w.WriteHeader(&tar.Header{Name: "layer" + strconv.Itoa(i), Typeflag: tar.TypeReg, Mode: 0o644}), w.Close())
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, static.NewLayer(b.Bytes(), types.OCIUncompressedLayer)); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// mkimage oci:DIR[:TAG] LAYERS [tar]
func makeImage(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	layers := newImage
	if len(args) > 2 {
		layers = newTarImage
	}
	img, err := layers(n)
	ts.Check(err)
	write(ts, args[0], &image.Content{Image: img})
}

// mkindex oci:DIR[:TAG] PLATFORM...
func makeIndex(ts *testscript.TestScript, _ bool, args []string) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, name := range args[1:] {
		img, err := newImage(i + 1)
		ts.Check(err)
		platform, err := v1.ParsePlatform(name)
		ts.Check(err)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: platform}})
	}
	write(ts, args[0], &image.Content{Index: index})
}

func testClient(ts *testscript.TestScript) *image.Client {
	return image.New(image.Config{Insecure: []string{ts.Getenv("REGISTRY")}})
}

func locate(ts *testscript.TestScript, c *image.Client, where string) image.Location {
	if rest, ok := strings.CutPrefix(where, "oci:"); ok {
		where = "oci:" + ts.MkAbs(rest)
	}
	l, err := c.Parse(where)
	ts.Check(err)
	return l
}

func write(ts *testscript.TestScript, where string, content *image.Content) {
	c := testClient(ts)
	ts.Check(c.Write(context.Background(), locate(ts, c, where), content))
}

// listed IMAGE: whether the registry or layout has it.
func listed(ts *testscript.TestScript, neg bool, args []string) {
	c := testClient(ts)
	_, err := c.Open(context.Background(), locate(ts, c, args[0]))
	if err != nil && !image.IsNotFound(err) && !errors.Is(err, os.ErrNotExist) {
		ts.Check(err)
	}
	if (err == nil) == neg {
		ts.Fatalf("%s is there: %v", args[0], err == nil)
	}
}

// opens IMAGE KEKFILE: every layer is either encrypted and opens with the key,
// or plain; its content must be the one that mkimage gave it. The media types
// are printed.
func opens(ts *testscript.TestScript, neg bool, args []string) {
	c := testClient(ts)
	content, err := c.Open(context.Background(), locate(ts, c, args[0]))
	ts.Check(err)
	kek := fixedKey(ts.ReadFile(args[1]))
	err = openLayers(ts.Stdout(), content, kek)
	if neg && err == nil {
		ts.Fatalf("%s opens with %s", args[0], args[1])
	}
	if !neg {
		ts.Check(err)
	}
}

type fixedKey []byte

func (k fixedKey) Key(context.Context, string) ([]byte, error) { return bytes.Clone(k), nil }

func openLayers(w io.Writer, content *image.Content, kek fixedKey) error {
	if content.Image != nil {
		return openImage(w, content.Image, content.Descriptor, kek)
	}
	index, err := content.ReadIndex()
	if err != nil {
		return err
	}
	for _, desc := range index.Manifests {
		img, err := content.Index.Image(desc.Digest)
		if err != nil {
			return err
		}
		if err := openImage(w, img, desc, kek); err != nil {
			return err
		}
	}
	return nil
}

func openImage(w io.Writer, img v1.Image, desc v1.Descriptor, kek fixedKey) error {
	m, err := image.ReadManifest(img, desc)
	if err != nil {
		return err
	}
	for i, desc := range m.Layers {
		fmt.Fprintln(w, i, desc.MediaType)
		plain, err := openLayer(img, desc, kek)
		if err != nil {
			return err
		}
		if string(plain) != layerContent(i) {
			return fmt.Errorf("layer %d is %q, want %q", i, plain, layerContent(i))
		}
	}
	return nil
}

func openLayer(img v1.Image, desc v1.Descriptor, kek fixedKey) ([]byte, error) {
	layer, err := img.LayerByDigest(desc.Digest)
	if err != nil {
		return nil, err
	}
	blob, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	raw, err := io.ReadAll(image.Verify(blob, desc))
	if err != nil || !strings.HasSuffix(string(desc.MediaType), "+encrypted") {
		return raw, err
	}
	var options blockcipher.LayerBlockCipherOptions
	packet, err := base64.StdEncoding.DecodeString(desc.Annotations[keyprovider.Annotation])
	if err != nil {
		return nil, err
	}
	private, err := (&keyprovider.Unwrapper{Keys: kek}).Unwrap(context.Background(), packet)
	if err != nil {
		return nil, err
	}
	public, err := base64.StdEncoding.DecodeString(desc.Annotations["org.opencontainers.image.enc.pubopts"])
	if err = errors.Join(err, json.Unmarshal(private, &options.Private), json.Unmarshal(public, &options.Public)); err != nil {
		return nil, err
	}
	handler, err := blockcipher.NewLayerBlockCipherHandler()
	if err != nil {
		return nil, err
	}
	plain, _, err := handler.Decrypt(bytes.NewReader(raw), options)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}

// waitfor FILE PATTERN: until a background command has written it.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	for range 200 {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	ts.Fatalf("%s did not come", args[0])
}

// wraps TARGET PARAMETERS KEKFILE: the key provider at TARGET wraps, and the
// key opens what it wrapped.
func wraps(ts *testscript.TestScript, neg bool, args []string) {
	err := wrapOnce(args[0], args[1], fixedKey(ts.ReadFile(args[2])))
	if neg {
		if err == nil {
			ts.Fatalf("%s wraps with %q", args[0], args[1])
		}
		fmt.Fprintln(ts.Stderr(), err)
		return
	}
	ts.Check(err)
}

func wrapOnce(target, params string, kek fixedKey) error {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	plbco := fmt.Sprintf(`{"symkey":%q,"digest":"sha256:%s","cipheroptions":{"nonce":%q}}`,
		base64.StdEncoding.EncodeToString(make([]byte, 32)), strings.Repeat("0", 64), base64.StdEncoding.EncodeToString(make([]byte, 16)))
	in := fmt.Sprintf(`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"attestation-agent":[%q]},"DecryptConfig":{"Parameters":null}},"optsdata":%q},"keyunwrapparams":{"dc":null,"annotation":null}}`,
		base64.StdEncoding.EncodeToString([]byte(params)), base64.StdEncoding.EncodeToString([]byte(plbco)))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := pb.NewKeyProviderServiceClient(conn)
	out, err := client.WrapKey(ctx, &pb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: []byte(in)}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	var answer struct {
		KeyWrapResults struct{ Annotation []byte }
	}
	if err := json.Unmarshal(out.KeyProviderKeyWrapProtocolOutput, &answer); err != nil {
		return err
	}
	got, err := (&keyprovider.Unwrapper{Keys: kek}).Unwrap(ctx, answer.KeyWrapResults.Annotation)
	if err != nil {
		return err
	}
	if string(got) != plbco {
		return fmt.Errorf("unwraps to %q, want %q", got, plbco)
	}
	return nil
}

// mode FILE PERMISSIONS
func fileMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has the mode %s, want %s", args[0], got, args[1])
	}
}

// fill FILE: put the script's variables in the places of $NAME.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o644))
}

// exits CODE COMMAND...: which error it is.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		type exitCoder interface{ ExitCode() int }
		var coder exitCoder
		if !errors.As(err, &coder) {
			ts.Check(err)
		}
		got = coder.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
