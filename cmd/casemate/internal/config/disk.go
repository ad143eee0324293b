// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"
)

// Disk is the confidential-workload disk, as buildah mkcw makes it, that this guest runs. What the disk says of itself
// must equal it, and its address of the relying party must be kbs.url.
type Disk struct {
	WorkloadID string `toml:"workload_id"`
	// Key is the secret of the relying party that is the disk's passphrase, its bytes as they are.
	Key string `toml:"key"`
	// Verity, when set, is the pin of the hash tree in the disk, as casemate-build disk prints it: the disk is of
	// casemate's form and not of buildah's, and what runs are the bytes that the pin names.
	Verity string `toml:"verity"`
}

func (d Disk) check() error {
	switch {
	case d == Disk{}:
		return nil
	case d.WorkloadID == "":
		return errors.New("disk.workload_id: want the one that the disk was made with")
	case !strings.HasPrefix(d.Key, "kbs:///"):
		return fmt.Errorf("disk.key %q: want kbs:///REPOSITORY/TYPE/TAG", d.Key)
	}
	return nil
}
