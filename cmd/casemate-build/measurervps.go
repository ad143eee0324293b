// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/cmd/internal/measured"
)

// rvpsMessage is what RegisterReferenceValue of Trustee's reference value provider
// service takes. It is not signed: the connection is what Trustee believes.
type rvpsMessage struct {
	Version string `json:"version"`
	Type    string `json:"type"`
	// Payload is the base64 of an object with a list of values for each name.
	Payload string `json:"payload"`
}

// rvpsName is what Trustee's own attestation policies call a value, empty for one
// that they do not look at.
func rvpsName(kind, name string) string {
	if kind == measured.SNP && strings.HasPrefix(name, "measurement ") {
		return "snp_launch_measurement"
	}
	return map[string]string{
		measured.TDX + " MRTD": "mr_td", measured.TDX + " RTMR1": "rtmr_1", measured.TDX + " RTMR2": "rtmr_2",
		measured.TPM + " PCR 11 sha256": "tpm_pcr11",
	}[kind+" "+name]
}

func printRVPS(w io.Writer, r measured.Result) error {
	if r.Debug() {
		return errors.New("the values are those of a debug guest: RVPS has no mark for them")
	}
	values := make(map[string][]string)
	for _, v := range r.Values {
		if name := rvpsName(r.Kind, v.Name); name != "" && !slices.Contains(values[name], v.Hex) {
			values[name] = append(values[name], v.Hex)
		}
	}
	if len(values) == 0 {
		return errors.New("none of the values has a name at RVPS")
	}
	payload, err := json.Marshal(values, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encoding reference values: %w", err)
	}
	message, err := json.Marshal(rvpsMessage{Version: "0.1.0", Type: "sample", Payload: base64.StdEncoding.EncodeToString(payload)})
	if err != nil {
		return fmt.Errorf("encoding reference values: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", message)
	return err
}
