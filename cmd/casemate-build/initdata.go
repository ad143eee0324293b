// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// workloadFile is the entry of initdata that casemate itself reads.
const workloadFile = "casemate.toml"

type initDataCommand struct {
	streams
	algorithm string
	set       []string
	workload  string
	output    string
	disk      string
	asJSON    bool
}

// initDataResult says what a host must launch the guest with.
type initDataResult struct {
	File      string `json:"file"`
	Algorithm string `json:"algorithm"`
	// Digest is ALGORITHM:HEX, as a registration lists it.
	Digest string `json:"digest"`
	// HostData is HOST_DATA of SEV-SNP, hex.
	HostData string `json:"host_data"`
	// MRConfigID is MRCONFIGID of TDX, hex.
	MRConfigID string `json:"mrconfigid"`
	// KataAnnotation is the value of kata's
	// io.katacontainers.config.hypervisor.cc_init_data.
	KataAnnotation string `json:"kata_annotation"`
}

func newInitData(s streams) *cobra.Command {
	ic := &initDataCommand{streams: s}
	c := &cobra.Command{
		Use:   "initdata --workload ID [--set NAME=FILE]... -o FILE",
		Short: "Write initdata and print the launch values that bind it",
		Long: `Write an initdata document and print its digest and the values that a host must
launch the guest with: HOST_DATA for SEV-SNP, MRCONFIGID for TDX. The digest goes
into the workload's registration at keybroker.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return ic.run() },
	}
	c.Flags().StringVar(&ic.algorithm, "algorithm", string(evidence.SHA256), "hash of the document: sha256, sha384 or sha512")
	c.Flags().StringArrayVar(&ic.set, "set", nil, "`NAME=FILE`: an entry and the file with its content, as aa.toml=FILE, cdh.toml=FILE, policy.rego=FILE; repeatable")
	c.Flags().StringVar(&ic.workload, "workload", "", "`ID` of the registration that the guest asks to be judged by, written into "+workloadFile)
	c.Flags().StringVarP(&ic.output, "output", "o", "", "`FILE` to write; - for standard output")
	c.Flags().StringVar(&ic.disk, "disk", "", "`FILE` to write the document to as the disk that a guest finds it on, for hosts without kata")
	c.Flags().BoolVar(&ic.asJSON, "json", false, "print JSON")
	return c
}

func (ic *initDataCommand) run() error {
	if ic.output == "" {
		return usagef("--output is missing")
	}
	algorithm, err := evidence.ParseHashAlgorithm(ic.algorithm)
	if err != nil {
		return usagef("--algorithm: %w", err)
	}
	data, err := ic.entries()
	if err != nil {
		return err
	}
	raw, err := initdata.Encode(algorithm, data)
	if err != nil {
		return err
	}
	document, err := initdata.Parse(raw)
	if err != nil {
		return err
	}
	annotation, err := kataAnnotation(raw)
	if err != nil {
		return err
	}
	hostData, mrConfigID := document.HostData(), document.MRConfigID()
	result := initDataResult{
		File: ic.output, Algorithm: string(algorithm), Digest: string(algorithm) + ":" + hex.EncodeToString(document.Digest()),
		HostData: hex.EncodeToString(hostData[:]), MRConfigID: hex.EncodeToString(mrConfigID[:]), KataAnnotation: annotation,
	}
	if ic.disk != "" {
		disk, err := initdata.WriteDisk(raw)
		if err != nil {
			return err
		}
		if err := replaceFile(ic.disk, disk, publicFileMode); err != nil {
			return fmt.Errorf("writing initdata's disk: %w", err)
		}
	}
	return ic.write(raw, result)
}

// entries collects the data table.
func (ic *initDataCommand) entries() (map[string]string, error) {
	data := make(map[string]string)
	for _, pair := range ic.set {
		name, file, ok := strings.Cut(pair, "=")
		if !ok || name == "" || file == "" {
			return nil, usagef("--set %q: want NAME=FILE", pair)
		}
		if _, ok := data[name]; ok {
			return nil, usagef("--set %s is given twice", name)
		}
		text, err := readFile(file, initdata.MaxSize)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		data[name] = string(text)
	}
	if ic.workload != "" {
		if err := owner.CheckID(ic.workload); err != nil {
			return nil, usagef("--workload: %w", err)
		}
		// In front, so that it stands before any table of the file.
		data[workloadFile] = fmt.Sprintf("workload = %q\n", ic.workload) + data[workloadFile]
	}
	if len(data) == 0 {
		return nil, usagef("nothing to write: give --workload or --set")
	}
	for name, text := range data {
		if !strings.HasSuffix(name, ".toml") {
			continue
		}
		var ignored map[string]any
		if _, err := toml.Decode(text, &ignored); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
	}
	return data, nil
}

func (ic *initDataCommand) write(raw []byte, result initDataResult) error {
	summary := ic.out
	if ic.output == "-" {
		summary = ic.err
		if _, err := ic.out.Write(raw); err != nil {
			return err
		}
	} else if err := replaceFile(ic.output, raw, publicFileMode); err != nil {
		return fmt.Errorf("writing initdata: %w", err)
	}
	if ic.asJSON {
		return printJSON(summary, result)
	}
	_, err := fmt.Fprintf(summary, "wrote       %s (%d bytes)\ndigest      %s\nHOST_DATA   %s\nMRCONFIGID  %s\n",
		result.File, len(raw), result.Digest, result.HostData, result.MRConfigID)
	return err
}

// kataAnnotation packs the document as kata's shim takes it: gzip without a
// time stamp, standard base64.
func kataAnnotation(raw []byte) (string, error) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(raw); err != nil {
		return "", fmt.Errorf("packing initdata: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("packing initdata: %w", err)
	}
	return base64.StdEncoding.EncodeToString(packed.Bytes()), nil
}
