// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/version"
)

func newVersion(s streams) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(s.out, struct {
					Version string `json:"version"`
					Go      string `json:"go"`
					KBS     string `json:"kbs_protocol"`
				}{version.Number, runtime.Version(), evidence.ProtocolVersion})
			}
			_, err := fmt.Fprintf(s.out, "keybroker %s (%s, KBS protocol %s)\n", version.Number, runtime.Version(), evidence.ProtocolVersion)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the result for programs")
	return c
}
