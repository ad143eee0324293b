// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
)

const (
	opWrap   = "keywrap"
	opUnwrap = "keyunwrap"

	// MaxInputBytes bounds one protocol document. skopeo sends its decryption
	// configuration along, PEM keys and all, so it is well above the packet.
	MaxInputBytes = 256 << 10
)

// inputJSON is what a client sends. Clients write both parameter members and
// fill the one that their operation needs.
type inputJSON struct {
	Operation    string           `json:"op"`
	WrapParams   *wrapParamsJSON  `json:"keywrapparams"`
	UnwrapParams *unwrapParamJSON `json:"keyunwrapparams"`
}

type wrapParamsJSON struct {
	EncryptConfig *encryptConfigJSON `json:"ec"`
	// OptionsData is the layer options, standard base64.
	OptionsData []byte `json:"optsdata"`
}

type encryptConfigJSON struct {
	// Parameters holds the parameter strings by provider name, standard
	// base64 each.
	Parameters    map[string][][]byte `json:"Parameters"`
	DecryptConfig *ignoredObject      `json:"DecryptConfig"`
}

type unwrapParamJSON struct {
	// DecryptConfig may hold the client's private keys for other schemes. They
	// are not copied.
	DecryptConfig *ignoredObject `json:"dc"`
	// Annotation is the annotation packet, standard base64.
	Annotation []byte `json:"annotation"`
}

func parseInput(raw []byte, op string) (*inputJSON, error) {
	if len(raw) > MaxInputBytes {
		return nil, fmt.Errorf("reading key provider input: %d bytes, want at most %d", len(raw), MaxInputBytes)
	}
	var in inputJSON
	err := json.Unmarshal(raw, &in, json.RejectUnknownMembers(true))
	if err != nil {
		return nil, fmt.Errorf("reading key provider input: %w", err)
	}
	if in.Operation != op {
		return nil, fmt.Errorf("reading key provider input: op %q, want %q for this method", in.Operation, op)
	}
	return &in, nil
}

// parseUnwrapInput returns the annotation packet of an UnWrapKey document.
func parseUnwrapInput(raw []byte) ([]byte, error) {
	in, err := parseInput(raw, opUnwrap)
	if err != nil {
		return nil, err
	}
	if in.UnwrapParams == nil || len(in.UnwrapParams.Annotation) == 0 {
		return nil, fmt.Errorf("reading key provider input: no annotation to unwrap")
	}
	return in.UnwrapParams.Annotation, nil
}

// parseWrapInput returns the parameters and the layer options of a WrapKey
// document. The options are the caller's to clear, also with an error.
func parseWrapInput(raw []byte) (wrapParams, []byte, error) {
	in, err := parseInput(raw, opWrap)
	if err != nil {
		return wrapParams{}, nil, err
	}
	if in.WrapParams == nil || len(in.WrapParams.OptionsData) == 0 {
		return wrapParams{}, nil, fmt.Errorf("reading key provider input: no optsdata to wrap")
	}
	plbco := in.WrapParams.OptionsData
	if in.WrapParams.EncryptConfig == nil {
		return wrapParams{}, plbco, nil
	}
	params := in.WrapParams.EncryptConfig.Parameters[ProviderName]
	if len(params) == 0 {
		return wrapParams{}, plbco, nil
	}
	if len(params) > 1 {
		return wrapParams{}, plbco, fmt.Errorf("reading key provider input: %d recipients for %s, want one", len(params), ProviderName)
	}
	p, err := parseWrapParams(string(params[0]))
	if err != nil {
		return wrapParams{}, plbco, fmt.Errorf("reading key provider input: %w", err)
	}
	return p, plbco, nil
}

func encodeUnwrapOutput(plbco []byte) []byte {
	return encodeOutput(`{"keyunwrapresults":{"optsdata":`, plbco)
}

func encodeWrapOutput(packet []byte) []byte {
	return encodeOutput(`{"keywrapresults":{"annotation":`, packet)
}

// encodeOutput writes data as an array of numbers. The Rust clients read that
// form only; Go's encoding/json reads it into a []byte as well as base64.
func encodeOutput(head string, data []byte) []byte {
	const tail = "]}}"
	const worstBytesPerByte = len("255,")
	out := make([]byte, 0, len(head)+len("[")+worstBytesPerByte*len(data)+len(tail))
	out = append(out, head...)
	out = append(out, '[')
	for i, b := range data {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendUint(out, uint64(b), 10)
	}
	return append(out, tail...)
}
