// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/measured"
)

// rvpsMessage is what RegisterReferenceValue of Trustee's reference value provider
// service takes. Trustee believes the connection that it comes over and checks no signature of
// it (its extractors sample and corim have none to check), so ours is a file beside it, which
// whoever registers the message checks before.
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

func newMeasureRVPS(s streams) *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "rvps --key FILE BUNDLE",
		Short: "Print the message for Trustee's RVPS of a signed release",
		Long: `Check the signature of a file that measure bundle wrote and print its values as one
message that registers them at Trustee's RVPS, where they replace those of the same name.`,
		Args: exactly("BUNDLE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if keyFile == "" {
				return usagef("--key is needed")
			}
			b, err := readBundle(args[0], keyFile)
			if err != nil {
				return err
			}
			message, err := encodeRVPS(b.Results...)
			if err == nil {
				_, err = s.out.Write(message)
			}
			return err
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "PEM `FILE` with the public key that the bundle is signed with")
	return c
}

func newMeasureVerify(s streams) *cobra.Command {
	var keyFile, signature string
	c := &cobra.Command{
		Use:   "verify --key FILE --signature FILE MESSAGE",
		Short: "Check the signature beside a message for Trustee's RVPS",
		Long: `Check the signature that --rvps --key --signature wrote beside a message, before
it is registered. OpenSSL can do the same:
  base64 -d message.sig > message.der
  openssl dgst -sha256 -verify release.pub -signature message.der message.json`,
		Args: exactly("MESSAGE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if keyFile == "" || signature == "" {
				return usagef("--key and --signature are needed")
			}
			key, err := readPublicKey(keyFile)
			if err != nil {
				return err
			}
			message, err := readFile(args[0], measured.MaxBundleSize)
			if err != nil {
				return err
			}
			sig, err := readFile(signature, measured.MaxSignatureSize)
			if err != nil {
				return err
			}
			if err := measured.VerifyDetached(message, sig, key); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, err = fmt.Fprintf(s.out, "verified %s (%d bytes)\n", args[0], len(message))
			return err
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "PEM `FILE` with the public key")
	c.Flags().StringVar(&signature, "signature", "", "`FILE` with the signature")
	return c
}

// printRVPS prints the message, and writes its signature first if there is to be one.
func (o *measureOutput) printRVPS(r measured.Result) error {
	message, err := encodeRVPS(r)
	if err != nil {
		return err
	}
	if o.key != "" {
		key, err := readSigningKey(o.key, o.passphrase)
		if err != nil {
			return err
		}
		sig, err := measured.SignDetached(message, key)
		if err != nil {
			return err
		}
		if err := writeNewFile(o.signature, sig, publicFileMode); err != nil {
			return err
		}
	}
	_, err = o.out.Write(message)
	return err
}

// encodeRVPS returns the message with the values of results of different kinds.
func encodeRVPS(results ...measured.Result) ([]byte, error) {
	values := make(map[string][]string)
	for _, r := range results {
		if r.Debug() {
			return nil, errors.New("the values are those of a debug guest: RVPS has no mark for them")
		}
		for _, v := range r.Values {
			if name := rvpsName(r.Kind, v.Name); name != "" && !slices.Contains(values[name], v.Hex) {
				values[name] = append(values[name], v.Hex)
			}
		}
	}
	if len(values) == 0 {
		return nil, errors.New("none of the values has a name at RVPS")
	}
	payload, err := json.Marshal(values, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encoding reference values: %w", err)
	}
	message, err := json.Marshal(rvpsMessage{Version: "0.1.0", Type: "sample", Payload: base64.StdEncoding.EncodeToString(payload)})
	if err != nil {
		return nil, fmt.Errorf("encoding reference values: %w", err)
	}
	return append(message, '\n'), nil
}
