// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// ProviderName is the name under which ocicrypt clients configure a
	// key provider of this kind, and the last part of the layer annotation.
	ProviderName = "attestation-agent"

	// Annotation is the layer annotation that carries annotation packets, each
	// in standard base64, separated by commas.
	Annotation = "org.opencontainers.image.enc.keys.provider." + ProviderName

	// maxParamBytes bounds one parameter string: a key id and room to spare.
	maxParamBytes = 2 * MaxKeyIDBytes
)

// wrapParams are the parameters of one wrap call.
type wrapParams struct {
	// keyID is empty if the call names none.
	keyID string
}

// parseWrapParams reads the parameter string of upstream's coco_keyprovider,
// "NAME=VALUE::NAME=VALUE". Of its names keyid is served, and algorithm as far
// as it asks for what is done anyway. A socket client must not choose key
// files of this machine nor a key that everyone knows.
func parseWrapParams(raw string) (wrapParams, error) {
	if len(raw) > maxParamBytes {
		return wrapParams{}, fmt.Errorf("parameters of %d bytes, want at most %d", len(raw), maxParamBytes)
	}
	var p wrapParams
	if raw == "" {
		return p, nil
	}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(raw, "::") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return wrapParams{}, fmt.Errorf("parameter %q has no value, want NAME=VALUE", pair)
		}
		if seen[name] {
			return wrapParams{}, fmt.Errorf("parameter %q is given twice", name)
		}
		seen[name] = true
		if err := p.set(name, value); err != nil {
			return wrapParams{}, err
		}
	}
	return p, nil
}

func (p *wrapParams) set(name, value string) error {
	switch name {
	case "keyid":
		if err := CheckKeyID(value); err != nil {
			return fmt.Errorf("parameter keyid: %w", err)
		}
		p.keyID = value
		return nil
	case "algorithm":
		if value != string(A256GCM) {
			return fmt.Errorf("parameter algorithm: %q is not offered, only %s", value, A256GCM)
		}
		return nil
	case "keypath":
		return errors.New("parameter keypath is refused: a client of the socket must not choose files of this machine; name the key file when starting the key provider")
	case "sample":
		return errors.New("parameter sample is refused: the sample key is public")
	default:
		return fmt.Errorf("parameter %q is unknown, want keyid or algorithm", name)
	}
}
