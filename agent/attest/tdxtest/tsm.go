// SPDX-License-Identifier: Apache-2.0

package tdxtest

import (
	"crypto/rand"
	"io/fs"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"
)

// TSM imitates the kernel's configfs-tsm below the library: it quotes td on the platform,
// in quotes of the given version.
func (p *Platform) TSM(td *TD, version uint16) configfsi.Client {
	return &faketsm.ReportSubsystem{
		Random: rand.Reader,
		MakeEntry: func() *faketsm.ReportEntry {
			return &faketsm.ReportEntry{InAttrs: map[string]*faketsm.ReportAttributeState{"inblob": {}}}
		},
		CheckInAttr: func(_ *faketsm.ReportEntry, attr string, contents []byte) error {
			if attr != "inblob" || len(contents) != 64 {
				return fs.ErrInvalid
			}
			return nil
		},
		ReadAttr: func(e *faketsm.ReportEntry, attr string) ([]byte, error) {
			switch attr {
			case "provider":
				return []byte("tdx_guest\n"), nil
			case "outblob":
				return p.Quote(version, td.Body(version, e.InAttrs["inblob"].Value))
			}
			return nil, fs.ErrNotExist
		},
	}
}
