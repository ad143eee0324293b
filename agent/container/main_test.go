// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"
	"testing"
)

// helperEnv makes the test program play another part; see helpers.
const helperEnv = "CASEMATE_CONTAINER_TEST_HELPER"

func TestMain(m *testing.M) {
	Init()
	if name := os.Getenv(helperEnv); name != "" {
		helper, ok := helpers()[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no helper", name)
			os.Exit(2)
		}
		if err := helper(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if code, done := runIsolated(); done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func helpers() map[string]func() error {
	return map[string]func() error{
		"environ": printReexecEnv,
		"reaper":  reapOrphans,
		"parent":  leaveOrphan,
		"sleep":   sleepShort,
	}
}
