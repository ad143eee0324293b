// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

func TestLoad(t *testing.T) {
	for _, tt := range []struct {
		name, text, wantErr string
		want                Measured
	}{
		{name: "empty trusts nothing", text: "", want: Measured{}},
		{
			name: "https with a pinned certificate",
			text: "[kbs]\nurl = 'https://kbs:8080'\ncert = 'PEM'\n",
			want: Measured{KBS: KBS{URL: "https://kbs:8080", Cert: "PEM"}},
		},
		{name: "unknown key", text: "[kbs]\nurl = 'https://k'\ncert = 'P'\ncrt = 'x'\n", wantErr: `line 4: unknown key "kbs.crt"`},
		{name: "repeated key", text: "[kbs]\nurl = 'https://a'\nurl = 'https://b'\n", wantErr: "line 3"},
		{name: "plain http unnamed", text: "[kbs]\nurl = 'http://kbs'\n", wantErr: "plain_http"},
		{name: "https without an anchor", text: "[kbs]\nurl = 'https://kbs'\n", wantErr: "kbs.cert"},
		{name: "two image policies", text: "[image]\npolicy = '{}'\npolicy_uri = 'kbs:///a/b/c'\n", wantErr: "one of them"},
		{name: "a plain TPM by its name", text: "tee = 'tpm'\n", want: Measured{TEE: "tpm"}},
		{name: "a TEE that does not exist", text: "tee = 'tpm2'\n", wantErr: "unknown TEE"},
		{name: "a TPM beside the TEE", text: "devices = ['tpm']\n", want: Measured{Devices: []evidence.TEE{evidence.TPM}}},
		{name: "a device that nobody attests", text: "devices = ['nvidia']\n", wantErr: "unknown device"},
		{name: "a device twice", text: "devices = ['tpm', 'tpm']\n", wantErr: "listed twice"},
		{name: "a device that nothing binds", text: "tee = 'tpm'\ndevices = ['sampledevice']\n", wantErr: "nothing would bind"},
		{name: "network by a parent", text: "pod_netns = '/run/netns/../../proc/1/ns/net'\n", wantErr: "pod_netns"},
		{name: "network without a path", text: "pod_netns = 'podns'\n", wantErr: "pod_netns"},
		{name: "workload outside initdata", text: "workload = 'a'\n", wantErr: "belongs into initdata"},
		{name: "debug outside initdata", text: "debug = true\n", wantErr: "belongs into initdata"},
		{name: "a key twice in two spellings", text: "[kbs]\nurl = 'https://a'\nURL = 'https://b'\ncert = 'P'\n", wantErr: "line 3: unknown key"},
		{name: "over its cap", text: strings.Repeat("#", maxFile+1), wantErr: "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "casemate.toml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Load(path)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestWithInitData(t *testing.T) {
	measured := Measured{KBS: KBS{URL: "https://kbs", Cert: "PEM"}}
	cdh := "[kbc]\nname = 'cc_kbc'\nurl = 'https://kbs'\nkbs_cert = 'PEM'\n"
	for _, tt := range []struct {
		name, wantErr, wantLog string
		from                   Measured
		data                   map[string]string
		want                   func(Measured) bool
	}{
		{
			name: "initdata alone names the KBS",
			data: map[string]string{"aa.toml": "[token_configs.kbs]\nurl='https://kbs'\ncert='PEM'\n", "cdh.toml": cdh},
			want: func(m Measured) bool { return m.KBS == KBS{URL: "https://kbs", Cert: "PEM"} },
		},
		{
			name: "workload selects",
			from: measured, data: map[string]string{"casemate.toml": "workload = 'demo'\n"},
			want: func(m Measured) bool { return m.Workload == "demo" },
		},
		{
			name: "host-written initdata moves the KBS",
			from: measured, data: map[string]string{"casemate.toml": "[kbs]\nurl='https://evil'\ncert='PEM'\n"},
			wantErr: "kbs.url is set twice",
		},
		{
			name: "host-written initdata adds a registry over plain HTTP",
			from: Measured{Image: Image{InsecureRegistries: []string{"a:5000"}}},
			data: map[string]string{"casemate.toml": "[image]\ninsecure_registries = ['evil:5000']\n"}, wantErr: "insecure_registries is set twice",
		},
		{name: "initdata moves the pod's network", data: map[string]string{"casemate.toml": "pod_netns = '/run/netns/x'\n"}, wantErr: "pod_netns belongs"},
		{name: "initdata moves the store", data: map[string]string{"casemate.toml": "[image]\nstore = '/dev/vda'\n"}, wantErr: "image.store belongs"},
		{name: "host-written initdata asks for a plain TPM", data: map[string]string{"casemate.toml": "tee = 'tpm'\n"}, wantErr: "tee belongs"},
		{name: "host-written initdata names a device", data: map[string]string{"casemate.toml": "devices = ['tpm']\n"}, wantErr: "devices belongs"},
		{name: "initdata opens a key provider", data: map[string]string{"casemate.toml": "[keyprovider]\nlisten = '127.0.0.1:1'\n"}, wantErr: "keyprovider.listen belongs"},
		{
			name: "two workloads in two spellings", wantErr: "unknown key",
			data: map[string]string{"casemate.toml": "workload = 'a'\nWorkload = 'b'\n"},
		},
		{
			name: "two addresses in two spellings", wantErr: "unknown key",
			data: map[string]string{"cdh.toml": cdh + "[KBC]\nurl = 'https://evil'\n"},
		},
		{
			name: "policy uri outranks the text, as upstream",
			data: map[string]string{"cdh.toml": cdh + "[image]\nimage_security_policy='{}'\nimage_security_policy_uri='kbs:///a/b/c'\n"},
			want: func(m Measured) bool { return m.Image.Policy == "" && m.Image.PolicyURI == "kbs:///a/b/c" },
		},
		{
			name: "a key that upstream obeys and we do not",
			data: map[string]string{"cdh.toml": "skip_sealed_secret_verification=true\n" + cdh}, wantErr: "not served",
		},
		{
			name: "a key that nobody obeys", wantLog: "fancy",
			data: map[string]string{"cdh.toml": "fancy=true\n" + cdh},
			want: func(m Measured) bool { return m.KBS.URL == "https://kbs" },
		},
		{
			name: "event log",
			data: map[string]string{"aa.toml": "[eventlog_config]\nenable_eventlog=true\ninit_pcr=17\n"},
			want: func(m Measured) bool { return m.EventLog == EventLog{Enable: true} },
		},
		{
			name: "the strict built-in policy, which initdata does not loosen", from: Measured{Agent: Agent{Strict: true}},
			data: map[string]string{"casemate.toml": "[agent]\nstrict=false\n"},
			want: func(m Measured) bool { return m.Agent.Strict },
		},
		{
			name: "the strict built-in policy by initdata's word",
			data: map[string]string{"casemate.toml": "[agent]\nstrict=true\n"},
			want: func(m Measured) bool { return m.Agent.Strict },
		},
		{
			name: "event log in the kernel's register", wantErr: "init_pcr",
			data: map[string]string{"aa.toml": "[eventlog_config]\nenable_eventlog=true\ninit_pcr=8\n"},
		},
		{
			name: "event log required in a register and not kept", wantErr: "eventlog.enable",
			data: map[string]string{"casemate.toml": "[eventlog]\nrequire=true\n"},
		},
		{
			name: "host-written initdata moves the vault", wantErr: "vault.url is set twice",
			from: Measured{Vault: Vault{URL: "https://v", Cert: "P", TokenURI: "kbs:///a/b/c"}},
			data: map[string]string{"casemate.toml": "[vault]\nurl='https://evil'\ncert='P'\ntoken_uri='kbs:///a/b/c'\n"},
		},
		{
			name: "host-written initdata moves AWS", wantErr: "aws is set twice",
			from: Measured{AWS: AWS{Region: "r", Cert: "P", CredentialURI: "kbs:///a/b/c", KMSURL: "https://k"}},
			data: map[string]string{"casemate.toml": "[aws]\nregion='r'\ncert='P'\ncredential_uri='kbs:///a/b/c'\nkms_url='https://evil'\n"},
		},
		{
			name: "host-written initdata replaces a sealing key", wantErr: "sealed_keys",
			from: Measured{SealedKeys: map[string]string{"owner": "{}"}},
			data: map[string]string{"casemate.toml": "[sealed_keys]\nowner='{ }'\n"},
		},
		{
			name: "a sealing key more",
			from: Measured{SealedKeys: map[string]string{"owner": "{}"}},
			data: map[string]string{"casemate.toml": "[sealed_keys]\nowner='{}'\ntenant='{ }'\n"},
			want: func(m Measured) bool { return len(m.SealedKeys) == 2 && m.SealedKeys["tenant"] == "{ }" },
		},
		{
			name: "the defaults written out",
			data: map[string]string{"cdh.toml": "socket='unix:///run/confidential-containers/cdh.sock'\ncredentials=[]\n" + cdh},
			want: func(m Measured) bool { return m.KBS.URL == "https://kbs" },
		},
		{
			name: "host-written initdata moves the data hub's socket", wantErr: "not initdata's to move",
			data: map[string]string{"cdh.toml": "socket='unix:///run/shared/cdh.sock'\n" + cdh},
		},
		{
			name: "an attestation service",
			data: map[string]string{"aa.toml": "[token_configs.coco_as]\nurl='https://as.example'\ncert='PEM'\n"},
			want: func(m Measured) bool {
				return m.CoCoAS == CoCoAS{"https://as.example", "PEM"} && strings.Contains(strings.Join(m.Weaknesses(), "\n"), "coco_as: ")
			},
		},
		{
			name: "an attestation service that anybody could be", wantErr: "coco_as.cert",
			data: map[string]string{"aa.toml": "[token_configs.coco_as]\nurl='https://as.example'\n"},
		},
		{
			name: "an attestation service over plain HTTP", wantErr: "want https",
			data: map[string]string{"aa.toml": "[token_configs.coco_as]\nurl='http://as.example'\ncert='PEM'\n"},
		},
		{
			name: "credentials",
			data: map[string]string{"cdh.toml": cdh + "[[credentials]]\nresource_uri='kbs:///a/b/c'\npath='/run/confidential-containers/cdh/kbs/x/c'\nlease='10m'\n"},
			want: func(m Measured) bool {
				return len(m.Credentials) == 1 && m.Credentials[0] == Credential{ResourceURI: "kbs:///a/b/c", Path: "/run/confidential-containers/cdh/kbs/x/c", Lease: 10 * time.Minute}
			},
		},
		{
			name: "host-written initdata adds credentials", wantErr: "credentials are set twice",
			from: Measured{Credentials: []Credential{{ResourceURI: "kbs:///a/b/c", Path: CredentialDir + "/c"}}},
			data: map[string]string{"cdh.toml": cdh + "[[credentials]]\nresource_uri='kbs:///a/b/c'\npath='/run/confidential-containers/cdh/kbs/d'\n"},
		},
		{
			name: "offline key store", wantErr: `want "cc_kbc"`,
			data: map[string]string{"cdh.toml": "[kbc]\nname='offline_fs_kbc'\n"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logged bytes.Buffer
			got, err := tt.from.WithInitData(tt.data, slog.New(slog.NewTextHandler(&logged, nil)))
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil || !tt.want(got) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if !strings.Contains(logged.String(), tt.wantLog) {
				t.Fatalf("logged %q, want %q", logged.String(), tt.wantLog)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[kbs]\nurl = 'https://kbs'\ncert = 'P'\n")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := parse(text); err == nil && strings.HasPrefix(m.KBS.URL, "http://") && !m.KBS.PlainHTTP {
			t.Fatalf("plain http accepted without its name: %+v", m)
		}
	})
}
