// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/casemate/casemate/verity"
)

// The names of the annotations.
const (
	// RootHash has the root hash alone, in lower-case hexadecimal digits.
	RootHash = "io.katacontainers.dm-verity.root-hash"
	// PinText has the pin in the form of [verity.Pin.Text], of a device with data and tree.
	PinText = "io.github.casemate.dm-verity.pin"
	// Implied lists directories of the layer, base64 of their paths without a leading slash, "." for the root, each
	// followed by a NUL: those whose attributes the layer's archive does not give, so that those of a layer below count.
	Implied = "io.github.casemate.layer.implied"
	// Opaque is "true" where the layer hides all below it.
	Opaque = "io.github.casemate.layer.opaque"
)

const (
	// maxImplied caps the paths of one layer: a manifest of 4 MiB has room for no more of them.
	maxImplied = 1 << 20
	// maxPath is the kernel's longest path (PATH_MAX).
	maxPath = 4096
)

// ErrUnbound says that nothing which the owner signed or measured names a device for the layer.
var ErrUnbound = errors.New("layer is bound to no device: no pin in its manifest or in measured configuration")

// Binding is what is said of a layer's device.
type Binding struct {
	Pin     verity.Pin
	Implied []string
	Opaque  bool
}

// Parse reads a layer's annotations. Without a pin the error wraps ErrUnbound.
func Parse(annotations map[string]string) (Binding, error) {
	text, ok := annotations[PinText]
	if !ok {
		return Binding{}, ErrUnbound
	}
	pin, err := verity.ParsePin(text)
	if err != nil {
		return Binding{}, err
	}
	if err := pin.Behind(); err != nil {
		return Binding{}, err
	}
	b := Binding{Pin: pin}
	if root, ok := annotations[RootHash]; ok && root != hex.EncodeToString(pin.RootHash) {
		return Binding{}, fmt.Errorf("annotation %s: got %.128q, and the pin has %x", RootHash, root, pin.RootHash)
	}
	switch opaque, ok := annotations[Opaque]; {
	case ok && opaque != "true":
		return Binding{}, fmt.Errorf("annotation %s: got %.40q, want true or nothing", Opaque, opaque)
	case ok:
		b.Opaque = true
	}
	if b.Implied, err = parseImplied(annotations[Implied]); err != nil {
		return Binding{}, fmt.Errorf("annotation %s: %w", Implied, err)
	}
	return b, nil
}

func parseImplied(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("want base64")
	}
	list := strings.Split(string(raw), "\x00")
	if last := len(list) - 1; list[last] != "" || last == 0 || last > maxImplied {
		return nil, fmt.Errorf("want 1 to %d paths with a NUL behind each", maxImplied)
	}
	list = list[:len(list)-1]
	for _, p := range list {
		if p == "" || len(p) > maxPath || p[0] == '/' || p == ".." || strings.HasPrefix(p, "../") || path.Clean(p) != p {
			return nil, fmt.Errorf("%.80q is no path in a layer", p)
		}
	}
	return list, nil
}

// Annotations is what Parse reads.
func (b Binding) Annotations() map[string]string {
	a := map[string]string{PinText: b.Pin.Text(), RootHash: hex.EncodeToString(b.Pin.RootHash)}
	if len(b.Implied) > 0 {
		a[Implied] = base64.StdEncoding.EncodeToString([]byte(strings.Join(b.Implied, "\x00") + "\x00"))
	}
	if b.Opaque {
		a[Opaque] = "true"
	}
	return a
}
