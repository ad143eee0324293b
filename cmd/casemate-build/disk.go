// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/casemate-build/internal/cwdisk"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/storage/krun"
)

// maxPassphrase caps a passphrase, in bytes, as libkrun's init does.
const maxPassphrase = 512

type diskCommand struct {
	streams
	form       string
	passphrase string
	krunConfig string
	asJSON     bool
	options    cwdisk.Options
}

// diskResult is what a guest's initdata says of the disk.
type diskResult struct {
	Disk       string `json:"disk"`
	Size       int64  `json:"size"`
	WorkloadID string `json:"workload_id"`
	// Verity is disk.verity of casemate.toml, empty for the form of buildah.
	Verity string `json:"verity,omitempty"`
}

func newDisk(s streams) *cobra.Command {
	d := &diskCommand{streams: s}
	d.options.Trailer.TEE = "snp"
	c := &cobra.Command{
		Use:   "disk --workload-id ID --passphrase-file FILE [--form mkcw|verity] ROOT OUT",
		Short: "Write a confidential-workload disk",
		Long: `Write the directory ROOT and an image's config as a confidential-workload disk to
the new file OUT, for casemate disk run. The form mkcw is that of buildah mkcw: LUKS1
and ext4, which libkrun's guests open too; nothing notices a change of its blocks. The
form verity is LUKS2 with a hash tree inside; the pin that is printed goes into
initdata as disk.verity, and only these bytes run; the same ROOT has the same pin. The passphrase is read from
FILE or, where there is none, made and written there; it is the secret that
disk.key names at keybroker. For mkcw mkfs.ext4 and debugfs must be installed.`,
		Args: exactly("ROOT", "OUT"),
		RunE: func(c *cobra.Command, args []string) error { return d.run(c.Context(), args[0], args[1]) },
	}
	f, t := c.Flags(), &d.options.Trailer
	f.StringVar(&d.form, "form", "mkcw", "mkcw or verity")
	f.StringVar(&d.options.ImageConfig, "image-config", "", "`FILE` with the OCI image config; without it ROOT has one as "+cwdisk.ConfigName)
	f.StringVar(&d.passphrase, "passphrase-file", "", "`FILE` with the passphrase, its bytes as they are (required)")
	f.IntVar(&d.options.Slop, "slop", 25, "`PERCENT` of room that is left in the file system of mkcw")
	f.StringVar(&t.WorkloadID, "workload-id", "", "the disk's `ID`, which the guest compares with disk.workload_id (required)")
	f.StringVar(&t.AttestationURL, "attestation-url", "", "`URL` of the relying party, which the guest compares with kbs.url")
	f.StringVar(&t.TEEData, "tee-data", `{"gen":"milan"}`, "`JSON` for libkrun")
	f.IntVar(&t.CPUs, "cpus", 2, "for libkrun")
	f.IntVar(&t.RAMMiB, "memory", 512, "in MiB, for libkrun")
	f.StringVar(&d.krunConfig, "krun-config", "", "also write the trailer to the new `FILE`, for libkrun's krun-sev.json")
	f.BoolVar(&d.asJSON, "json", false, "print JSON")
	return c
}

func (d *diskCommand) run(ctx context.Context, root, out string) error {
	switch {
	case d.options.Trailer.WorkloadID == "" || d.passphrase == "":
		return usagef("--workload-id and --passphrase-file are required")
	case d.form != "mkcw" && d.form != "verity":
		return usagef("--form %q, want mkcw or verity", d.form)
	}
	object, err := krun.Object(d.options.Trailer)
	if err != nil {
		return usagef("%w", err)
	}
	d.options.Root, d.options.Verity = root, d.form == "verity"
	if d.options.Passphrase, err = d.readPassphrase(); err != nil {
		return err
	}
	defer clear(d.options.Passphrase)
	made, err := cwdisk.Write(ctx, out, d.options)
	if err != nil {
		return err
	}
	if d.krunConfig != "" {
		if err := writeNewFile(d.krunConfig, object, publicFileMode); err != nil {
			return err
		}
	}
	result := diskResult{Disk: out, Size: made.Size, WorkloadID: d.options.Trailer.WorkloadID}
	if made.Pin != nil {
		result.Verity = made.Pin.Text()
	}
	if d.asJSON {
		return printJSON(d.out, result)
	}
	return d.print(result)
}

func (d *diskCommand) print(r diskResult) error {
	fmt.Fprintf(d.out, "%s has %d bytes; initdata's casemate.toml wants\n\n[disk]\nworkload_id = %q\nkey = \"kbs:///REPOSITORY/TYPE/TAG\"\n", r.Disk, r.Size, r.WorkloadID)
	if r.Verity != "" {
		fmt.Fprintf(d.out, "verity = %q\n", r.Verity)
	}
	_, err := fmt.Fprintf(d.out, "\nand keybroker the passphrase: keybroker resource set --workload ID REPOSITORY/TYPE/TAG %s\n", d.passphrase)
	return err
}

// readPassphrase makes one where there is none: the hex digits of 32 random bytes, as buildah does.
func (d *diskCommand) readPassphrase() ([]byte, error) {
	pass, err := readFile(d.passphrase, min(maxPassphrase, owner.MaxSecretSize))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		var b [32]byte
		rand.Read(b[:]) // never fails
		pass = hex.AppendEncode(nil, b[:])
		return pass, writeNewFile(d.passphrase, pass, 0o600)
	case err != nil:
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	case len(pass) == 0 || strings.ContainsAny(string(pass), "\r\n"):
		clear(pass)
		return nil, fmt.Errorf("reading the passphrase: %s is empty or has a line's end, which would be part of it", d.passphrase)
	}
	return pass, nil
}
