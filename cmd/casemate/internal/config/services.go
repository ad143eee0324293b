// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Services are the sockets of guest-components' daemons; an empty address serves nothing.
type Services struct {
	// AttestationAgent and DataHub are unix:///PATH.
	AttestationAgent string `toml:"attestation_agent"`
	DataHub          string `toml:"data_hub"`
	// REST is a loopback HOST:PORT, which every container reaches.
	REST string `toml:"rest"`
	// RESTFeatures is "resource" (default), "attestation" or "all".
	RESTFeatures string `toml:"rest_features"`
	// RESTResources are the kbs:///repository/type/tag that REST serves; no others.
	RESTResources []string `toml:"rest_resources"`
	// GetToken serves GetToken on the attestation agent's socket: a token with a private
	// key of its own. RESTToken serves it to containers as well.
	GetToken  bool `toml:"get_token"`
	RESTToken bool `toml:"rest_token"`
	// SecureMount lists what the data hub mounts for its callers, below /run/kata-containers: names of volumes, and
	// "scratch" for new scratch, whose device loses what it holds. Empty serves nothing.
	SecureMount []string `toml:"secure_mount"`
	// RawEvidence binds GetEvidence to the caller's bytes as they are.
	RawEvidence bool `toml:"raw_evidence"`
}

// MountScratch stands for new scratch among the volumes that may be mounted; no volume has this name.
const MountScratch = "scratch"

// CoCoAS is CoCo's attestation service, whose tokens GetToken of type coco_as returns.
type CoCoAS struct {
	// URL is https://HOST[:PORT][/PATH], without /attestation; empty serves none.
	URL string `toml:"url"`
	// Cert is PEM text: the only roots accepted for its certificate.
	Cert string `toml:"cert"`
}

func (c CoCoAS) check() error {
	if c != (CoCoAS{}) && (!strings.HasPrefix(c.URL, "https://") || c.Cert == "") {
		return fmt.Errorf("coco_as.url %q: want https, and coco_as.cert, the PEM certificate that it is pinned to", c.URL)
	}
	return nil
}

// check refuses sockets that anybody reaches and listed resources that are the guest's own.
func (s Services) check(own []string) error {
	for key, address := range map[string]string{"attestation_agent": s.AttestationAgent, "data_hub": s.DataHub} {
		if address != "" && !strings.HasPrefix(address, "unix:") {
			return fmt.Errorf("services.%s %q: want unix:///PATH", key, address)
		}
	}
	if s.RESTToken && !s.GetToken {
		return errors.New("services.rest_token: want services.get_token with it")
	}
	if !slices.Contains([]string{"", "resource", "attestation", "all"}, s.RESTFeatures) {
		return fmt.Errorf("services.rest_features %q: want resource, attestation or all", s.RESTFeatures)
	}
	for _, uri := range s.RESTResources {
		if !strings.HasPrefix(uri, "kbs:///") {
			return fmt.Errorf("services.rest_resources %q: want kbs:///REPOSITORY/TYPE/TAG", uri)
		}
		if slices.Contains(own, uri) {
			return fmt.Errorf("services.rest_resources %q: it is the guest's own and not for its workload", uri)
		}
	}
	return nil
}

// EventLog is the record of images pulled and containers started.
type EventLog struct {
	// Enable keeps one, in a register where the platform has one.
	Enable bool `toml:"enable"`
	// Require fails what would be recorded where no register holds it.
	Require bool `toml:"require"`
}
