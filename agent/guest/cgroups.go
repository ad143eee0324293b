// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// requiredControllers are those without which no container may be bounded. The host can switch controllers off on
// the kernel command line; the guest then does not start.
func requiredControllers() []string { return []string{"cpu", "memory", "pids"} }

// delegateControllers passes every controller of the hierarchy at root on to its children
// (kernel Documentation/admin-guide/cgroup-v2.rst, "Enabling and Disabling") and returns their names.
func delegateControllers(root string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("reading controllers: %w", err)
	}
	have := strings.Fields(string(text))
	for _, name := range requiredControllers() {
		if !slices.Contains(have, name) {
			return nil, fmt.Errorf("controller %s is not available", name)
		}
	}
	control := filepath.Join(root, "cgroup.subtree_control")
	if err := set(control, "+"+strings.Join(have, " +")); err != nil {
		return nil, fmt.Errorf("delegating controllers: %w", err)
	}
	return have, nil
}
