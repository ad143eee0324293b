// SPDX-License-Identifier: Apache-2.0

package config

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// Each switch must be printed as a weakness, wherever it was set.
func TestServicesThatLetCallersBeTheGuest(t *testing.T) {
	text := "[services]\nget_token = true\nrest_token = true\nraw_evidence = true\n"
	measured, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := Measured{}.WithInitData(map[string]string{"casemate.toml": text}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []Measured{measured, accepted} {
		for _, key := range []string{"services.get_token", "services.rest_token", "services.raw_evidence"} {
			if !slices.ContainsFunc(m.Weaknesses(), func(w string) bool { return strings.HasPrefix(w, key) }) {
				t.Errorf("%s is not among %q", key, m.Weaknesses())
			}
		}
	}
	if w := (Measured{}).Weaknesses(); len(w) > 0 {
		t.Errorf("nothing is set, and weak: %q", w)
	}
}

func TestServices(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		good bool
	}{
		"all":                           {"[services]\nattestation_agent = 'unix:///a'\ndata_hub = 'unix:///b'\nrest = '127.0.0.1:8006'\nrest_features = 'all'\nrest_resources = ['kbs:///a/b/c']", true},
		"tokens":                        {"[services]\nget_token = true\nrest_token = true\nraw_evidence = true", true},
		"vault":                         {"[vault]\nurl = 'https://v'\ncert = 'P'\ntoken_uri = 'kbs:///a/vault/token'", true},
		"vault over plain HTTP":         {"[vault]\nurl = 'http://v'\ncert = 'P'\ntoken_uri = 'kbs:///a/vault/token'", false},
		"vault that is not pinned":      {"[vault]\nurl = 'https://v'\ntoken_uri = 'kbs:///a/vault/token'", false},
		"vault with a token in a file":  {"[vault]\nurl = 'https://v'\ncert = 'P'\ntoken_uri = 'file:///token'", false},
		"a mount of no vault":           {"[vault]\nkv = 'x'", false},
		"the guest's vault token":       {"[vault]\nurl = 'https://v'\ncert = 'P'\ntoken_uri = 'kbs:///a/b/c'\n[services]\nrest_resources = ['kbs:///a/b/c']", false},
		"aws":                           {"[aws]\nregion = 'eu-central-1'\ncert = 'P'\ncredential_uri = 'kbs:///a/aws/credential'", true},
		"aws that is not pinned":        {"[aws]\nregion = 'eu-central-1'\ncredential_uri = 'kbs:///a/aws/credential'", false},
		"aws credential in a file":      {"[aws]\nregion = 'eu-central-1'\ncert = 'P'\ncredential_uri = 'file:///credential.json'", false},
		"aws over plain HTTP":           {"[aws]\nregion = 'eu-central-1'\ncert = 'P'\ncredential_uri = 'kbs:///a/b/c'\nkms_url = 'http://k'", false},
		"the guest's aws credential":    {"[aws]\nregion = 'r'\ncert = 'P'\ncredential_uri = 'kbs:///a/b/c'\n[services]\nrest_resources = ['kbs:///a/b/c']", false},
		"a sealing key":                 {"[sealed_keys]\nowner = '{}'", true},
		"a sealing key for a KBS URI":   {"[sealed_keys]\n'kbs:///a/b/c' = '{}'", false},
		"tokens for containers alone":   {"[services]\nrest_token = true", false},
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

func TestCredentialPlaces(t *testing.T) {
	const uri = "kbs:///a/b/c"
	for name, c := range map[string]struct {
		list []Credential
		good bool
	}{
		"none":                   {nil, true},
		"two":                    {[]Credential{{ResourceURI: uri, Path: CredentialDir + "/a"}, {ResourceURI: uri, Path: CredentialDir + "/x/b"}}, true},
		"two for one file":       {[]Credential{{ResourceURI: uri, Path: CredentialDir + "/a"}, {ResourceURI: uri, Path: CredentialDir + "/a"}}, false},
		"elsewhere":              {[]Credential{{ResourceURI: uri, Path: "/etc/shadow"}}, false},
		"climbing":               {[]Credential{{ResourceURI: uri, Path: CredentialDir + "/../../../../etc/shadow"}}, false},
		"only beginning like it": {[]Credential{{ResourceURI: uri, Path: CredentialDir + "-other/a"}}, false},
		"the directory itself":   {[]Credential{{ResourceURI: uri, Path: CredentialDir + "/"}}, false},
		"hidden, as ours are":    {[]Credential{{ResourceURI: uri, Path: CredentialDir + "/.a"}}, false},
		"a file for a secret":    {[]Credential{{ResourceURI: "file:///etc/shadow", Path: CredentialDir + "/a"}}, false},
		"nothing for a secret":   {[]Credential{{ResourceURI: "", Path: CredentialDir + "/a"}}, false},
		"a lease":                {[]Credential{{ResourceURI: uri, Path: CredentialDir + "/a", Lease: MinLease}}, true},
		"a lease of no time":     {[]Credential{{ResourceURI: uri, Path: CredentialDir + "/a", Lease: MinLease - 1}}, false},
		"a negative lease":       {[]Credential{{ResourceURI: uri, Path: CredentialDir + "/a", Lease: -MinLease}}, false},
		"a lease without end":    {[]Credential{{ResourceURI: uri, Path: CredentialDir + "/a", Lease: MaxLease + 1}}, false},
	} {
		if err := checkCredentials(c.list); (err == nil) != c.good {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
