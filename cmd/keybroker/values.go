// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/measured"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// maxValuesKey bounds a PEM file with one public key.
const maxValuesKey = 64 << 10

// readValues reads a release's reference values and checks their signature.
func readValues(file, keyFile string) (measured.Bundle, error) {
	text, err := readFile(keyFile, maxValuesKey)
	if err != nil {
		return measured.Bundle{}, fmt.Errorf("reading the key of reference values: %w", err)
	}
	key, err := measured.ParseKey(text)
	if err != nil {
		return measured.Bundle{}, err
	}
	if text, err = readFile(file, measured.MaxBundleSize); err != nil {
		return measured.Bundle{}, fmt.Errorf("reading reference values: %w", err)
	}
	return measured.Open(text, key)
}

// addValues adds what a bundle has for the registration's TEEs. What the registration has
// of its own is never replaced or added to: it would not be known where a value is from.
func addValues(r *owner.Registration, b measured.Bundle) error {
	for tee, add := range map[evidence.TEE]func(*owner.Registration, measured.Result) error{
		evidence.SNP: addSNP, evidence.TDX: addTDX, evidence.TPM: addTPM,
	} {
		if !r.Takes(tee) {
			continue
		}
		result, ok := b.Of(string(tee))
		if !ok {
			return fmt.Errorf("release %q has no reference values for %s", b.Release, tee)
		}
		if err := add(r, result); err != nil {
			return fmt.Errorf("adding the %s reference values of release %q: %w", tee, b.Release, err)
		}
	}
	return nil
}

// set fills an empty list with the values whose names begin with prefix, each once.
func set(list *[]string, from measured.Result, prefix string) error {
	if len(*list) > 0 {
		return fmt.Errorf("the registration has values for %s", strings.TrimSpace(prefix))
	}
	for _, v := range from.Values {
		if strings.HasPrefix(v.Name, prefix) && !slices.Contains(*list, v.Hex) {
			*list = append(*list, v.Hex)
		}
	}
	return nil
}

func addSNP(r *owner.Registration, from measured.Result) error {
	if r.SNP == nil {
		r.SNP = new(owner.SNPReference)
	}
	r.SNP.Debug = r.SNP.Debug || from.Debug()
	// A digest that no kernel went into is the firmware's alone, as casemate-build measure says in its text.
	r.SNP.FirmwareOnly = r.SNP.FirmwareOnly || slices.ContainsFunc(from.Values, func(v measured.Value) bool { return !slices.Contains(v.From, "kernel") })
	return set(&r.SNP.Measurements, from, "measurement ")
}

func addTDX(r *owner.Registration, from measured.Result) error {
	if r.TDX == nil {
		r.TDX = new(owner.TDXReference)
	}
	r.TDX.Debug = r.TDX.Debug || from.Debug()
	for prefix, list := range map[string]*[]string{"MRTD": &r.TDX.Measurements, "RTMR0": &r.TDX.RTMR0, "RTMR1": &r.TDX.RTMR1, "RTMR2": &r.TDX.RTMR2} {
		if err := set(list, from, prefix); err != nil {
			return err
		}
	}
	return nil
}

// addTPM leaves the register of the initdata out: it is compared with the initdata itself.
func addTPM(r *owner.Registration, from measured.Result) error {
	if r.TPM == nil {
		r.TPM = new(owner.TPMReference)
	}
	r.TPM.Debug = r.TPM.Debug || from.Debug()
	if r.TPM.PCRs == nil {
		r.TPM.PCRs = make(map[string][]string)
	}
	for _, v := range from.Values {
		var index int
		if _, err := fmt.Sscanf(v.Name, "PCR %d sha256", &index); err != nil || !strings.HasSuffix(v.Name, " sha256") || index == evidence.TPMInitDataRegister {
			continue
		}
		name := fmt.Sprint(index)
		if len(r.TPM.PCRs[name]) > 0 {
			return fmt.Errorf("the registration has values for PCR %s", name)
		}
		r.TPM.PCRs[name] = []string{v.Hex}
	}
	return nil
}
