// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
)

// joinLayers has the layers of both sources, which must agree about one that both name.
func joinLayers(a, b map[string]map[string]string) (map[string]map[string]string, error) {
	if len(a) == 0 {
		return b, nil
	}
	all := maps.Clone(a)
	for digest, annotations := range b {
		if old, ok := all[digest]; ok && !maps.Equal(old, annotations) {
			return nil, fmt.Errorf("image.layers.%q is set twice, and differs", digest)
		}
		all[digest] = annotations
	}
	return all, nil
}
