// SPDX-License-Identifier: Apache-2.0

package image

import (
	_ "embed"
)

const (
	// ExtensionName is what kata calls the extension with the guest components: its disk has the
	// serial number extension-coco, the kernel parameter kata.extension.coco.verity_params
	// pins it, and it is mounted at /run/kata-extensions/coco.
	ExtensionName = "coco"

	extensionDir     = "/usr/local/bin/"
	extensionProgram = extensionDir + "casemate"
	// pauseProgram is a link: the agent copies what it leads to.
	pauseProgram = "/pause_bundle/rootfs/pause"
)

//go:embed extension/components.toml
var extensionComponents string

//go:embed extension/pause.json
var pauseConfig string

// ocicryptConfig is for programs beside casemate that open layers with ocicrypt; casemate
// itself reads none.
const ocicryptConfig = `{"key-providers":{"attestation-agent":{"ttrpc":"unix:///run/confidential-containers/cdh.sock"}}}` + "\n"

// ExtensionTree is the content of a coco extension for a stock kata-agent: the program
// under the names of guest-components' daemons, the manifest by which the agent starts
// them, and a pause bundle (kata-containers 4.1, composable VM images). The program
// finds all of its own storage tools in itself, so there are none.
func ExtensionTree(program string) (*Tree, error) {
	if err := checkProgram(program, false); err != nil {
		return nil, err
	}
	t := NewTree()
	list := []Entry{
		{Path: extensionProgram, Kind: File, Perm: programPerm, HostPath: program},
		{Path: "/etc/kata-extensions/components.toml", Kind: File, Perm: filePerm, Text: extensionComponents},
		{Path: "/etc/ocicrypt_config.json", Kind: File, Perm: filePerm, Text: ocicryptConfig},
		{Path: "/pause_bundle/config.json", Kind: File, Perm: filePerm, Text: pauseConfig},
		{Path: pauseProgram, Kind: Link, Target: "../.." + extensionProgram},
	}
	for _, name := range []string{"attestation-agent", "confidential-data-hub", "api-server-rest"} {
		list = append(list, Entry{Path: extensionDir + name, Kind: Link, Target: "casemate"})
	}
	return t, t.Add(list...)
}
