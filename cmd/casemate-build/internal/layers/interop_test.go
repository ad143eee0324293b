// SPDX-License-Identifier: Apache-2.0

//go:build interop

package layers

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/casemate/casemate/verity"
	"github.com/casemate/casemate/verity/layer"
)

// TestInteropVeritysetup: a device is one to veritysetup, which finds the parameters in the superblock behind the data,
// and does not take a flipped bit.
func TestInteropVeritysetup(t *testing.T) {
	first := archive(t, "./", "etc/", "etc/motd")
	made, err := Make(t.Context(), content(t, asItIs, part{types.OCILayer, gzipped(t, first), first}), t.TempDir(), func(Layer) {})
	if err != nil {
		t.Fatal(err)
	}
	b, err := layer.Parse(made.Layers[0].Annotations)
	if err != nil {
		t.Fatal(err)
	}
	file := made.Layers[0].File
	verify := func() ([]byte, error) {
		start := b.Pin.HashOffset - verity.TreeOffset(b.Pin.HashBlockSize)
		return exec.CommandContext(t.Context(), "veritysetup", "verify", file, file, hex.EncodeToString(b.Pin.RootHash), fmt.Sprintf("--hash-offset=%d", start)).CombinedOutput()
	}
	if out, err := verify(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[5000] ^= 1
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := verify(); err == nil {
		t.Errorf("a flipped bit was taken: %s", out)
	}
}
