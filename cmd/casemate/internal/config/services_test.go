// SPDX-License-Identifier: Apache-2.0

package config

import "testing"

func TestServices(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		good bool
	}{
		"all":                           {"[services]\nattestation_agent = 'unix:///a'\ndata_hub = 'unix:///b'\nrest = '127.0.0.1:8006'\nrest_features = 'all'\nrest_resources = ['kbs:///a/b/c']", true},
		"data hub on TCP":               {"[services]\ndata_hub = '127.0.0.1:50000'", false},
		"agent on TCP":                  {"[services]\nattestation_agent = '127.0.0.1:50002'", false},
		"unknown feature":               {"[services]\nrest_features = 'everything'", false},
		"resource that is a file":       {"[services]\nrest_resources = ['file:///etc/shadow']", false},
		"the guest's registry password": {"[image]\ncredentials_uri = 'kbs:///a/b/c'\n[services]\nrest_resources = ['kbs:///a/b/c']", false},
		"the guest's image policy":      {"[image]\npolicy_uri = 'kbs:///a/b/c'\n[services]\nrest_resources = ['kbs:///a/b/c']", false},
	} {
		if _, err := parse(c.text); (err == nil) != c.good {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestInitDataNamesResourcesAndNoSockets(t *testing.T) {
	o := Measured{Services: Services{RESTResources: []string{"kbs:///a/b/c"}}}
	if err := o.tenantOnly(); err != nil {
		t.Errorf("got %v", err)
	}
	joined, err := Measured{}.join(o)
	if err != nil || len(joined.Services.RESTResources) != 1 {
		t.Errorf("got %v, %v", joined.Services, err)
	}
	if _, err := (Measured{Image: Image{CredentialsURI: "kbs:///a/b/c"}}).join(o); err == nil {
		t.Error("initdata lists the guest's registry password for the workload")
	}
	if err := (Measured{Services: Services{DataHub: "unix:///a"}}).tenantOnly(); err == nil {
		t.Error("initdata opens a socket")
	}
}
