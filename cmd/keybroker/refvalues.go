// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

func newReferenceValues(s streams) *cobra.Command {
	return group("reference-values", "Print what guests are compared with", newReferenceValuesShow(s))
}

func newReferenceValuesShow(s streams) *cobra.Command {
	var f ownerFlags
	c := &cobra.Command{
		Use:   "show [ID]",
		Short: "Print the reference values of workload ID, or the list of workloads",
		Args:  between(0, "ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return showWorkloads(c.Context(), s.out, client, f.json)
			}
			registration, err := client.Workload(c.Context(), args[0])
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(s.out, registration)
			}
			showReferenceValues(s.out, registration)
			return nil
		},
	}
	f.add(c)
	return c
}

func showWorkloads(ctx context.Context, out io.Writer, client *owner.Client, asJSON bool) error {
	list, err := client.Workloads(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, owner.WorkloadList{Workloads: list})
	}
	for _, w := range list {
		note := ""
		if w.TestRoots {
			note = "  TEST ROOTS"
		}
		fmt.Fprintf(out, "%-24s %v  %d secrets%s  %s\n", w.ID, w.TEEs, w.Secrets, note, w.Description)
	}
	return nil
}

func showTDX(out io.Writer, t *owner.TDXReference) {
	if t == nil {
		return
	}
	for _, m := range t.Measurements {
		fmt.Fprintf(out, "mrtd         %s\n", m)
	}
	for i, list := range t.Registers() {
		for _, m := range list {
			fmt.Fprintf(out, "rtmr%d        %s\n", i, m)
		}
	}
	fmt.Fprintf(out, "tcb_status   %v, not before %q\n", t.Statuses(), t.MinimumTCBDate)
	if t.AcceptMissingCollateral {
		fmt.Fprintln(out, "accept_missing_collateral  true: revocation and old firmware may go unnoticed")
	}
}

func showTPM(out io.Writer, t *owner.TPMReference) {
	if t == nil {
		return
	}
	for _, digest := range t.KeyDigests() {
		fmt.Fprintf(out, "ak           %s\n", digest)
	}
	showPCRs(out, t.PCRs)
}

func showPCRs(out io.Writer, pcrs owner.PCRs) {
	for i := range evidence.TPMRegisters {
		for _, value := range pcrs.Register(i) {
			fmt.Fprintf(out, "pcr%-2d        %s\n", i, value)
		}
	}
}

func showReferenceValues(out io.Writer, r owner.Registration) {
	fmt.Fprintf(out, "workload     %s\n", r.ID)
	for _, tee := range r.TEEs {
		fmt.Fprintf(out, "tee          %s\n", tee)
	}
	for _, digest := range r.InitData {
		fmt.Fprintf(out, "initdata     %s\n", digest)
	}
	if r.TestRoots {
		fmt.Fprintln(out, "test_roots   true: evidence may prove nothing about hardware")
	}
	if r.Debug {
		fmt.Fprintln(out, "debug        true: secrets go to guests in which the host has a shell")
	}
	for _, gap := range r.Gaps() {
		fmt.Fprintf(out, "unproved     %s: %s\n", gap.Part, gap.Why)
	}
	showTDX(out, r.TDX)
	showTPM(out, r.TPM)
	if r.Azure != nil {
		showPCRs(out, r.Azure.PCRs)
	}
	if r.SNP == nil {
		return
	}
	for _, m := range r.SNP.Measurements {
		fmt.Fprintf(out, "measurement  %s\n", m)
	}
	for _, line := range slices.Sorted(maps.Keys(r.SNP.MinimumTCB)) {
		t := r.SNP.MinimumTCB[line]
		fmt.Fprintf(out, "minimum_tcb  %s: fmc %d bootloader %d tee %d snp %d microcode %d\n", line, t.FMC, t.Bootloader, t.TEE, t.SNP, t.Microcode)
	}
	if r.SNP.AcceptMissingCRL {
		fmt.Fprintln(out, "accept_missing_crl  true: revocation may go unnoticed")
	}
}
