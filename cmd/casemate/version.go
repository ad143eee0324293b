// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/casemate/casemate/cmd/internal/version"
)

func runVersion(_ context.Context, args []string) error {
	var asJSON bool
	if _, err := parse(args, 0, 0, func(s *flag.FlagSet) { s.BoolVar(&asJSON, "json", false, "print JSON") }); err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(map[string]string{"version": version.Number, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	_, err := fmt.Fprintf(os.Stdout, "casemate %s (%s, %s/%s)\n", version.Number, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
