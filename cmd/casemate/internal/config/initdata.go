// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Keys of initdata's data table that this program reads. policy.rego is the
// agent policy's.
const (
	keyCasemate = "casemate.toml"
	keyAA       = "aa.toml"
	keyCDH      = "cdh.toml"
)

// WithInitData adds what accepted initdata says: data is its table of file names
// to contents, whose digest the caller has found in the evidence. Keys that
// guest-components ignores are logged as warnings.
func (m Measured) WithInitData(data map[string]string, log *slog.Logger) (Measured, error) {
	for _, source := range []struct {
		key   string
		parse func(string, *slog.Logger) (Measured, error)
	}{
		{keyCasemate, func(text string, _ *slog.Logger) (Measured, error) {
			part, err := parse(text)
			return part, errors.Join(err, part.tenantOnly())
		}},
		{keyAA, parseAA},
		{keyCDH, parseCDH},
	} {
		text, ok := data[source.key]
		if !ok {
			continue
		}
		part, err := source.parse(text, log)
		if err != nil {
			return Measured{}, fmt.Errorf("reading initdata's %s: %w", source.key, err)
		}
		if m, err = m.join(part); err != nil {
			return Measured{}, fmt.Errorf("joining initdata's %s with the measured configuration: %w", source.key, err)
		}
	}
	return m, m.check()
}

// aaFile is attestation-agent's configuration as far as casemate obeys it.
type aaFile struct {
	TokenConfigs struct {
		KBS struct {
			URL             string `toml:"url"`
			Cert            string `toml:"cert"`
			TEEKeyAlgorithm string `toml:"tee_key_algorithm"`
		} `toml:"kbs"`
		CoCoAS CoCoAS `toml:"coco_as"`
	} `toml:"token_configs"`
	EventLog struct {
		InitPCR *uint64 `toml:"init_pcr"`
		Enable  bool    `toml:"enable_eventlog"`
	} `toml:"eventlog_config"`
}

// Keys that attestation-agent or confidential-data-hub obeys and casemate does
// not: ignoring one would change what the owner asked for.
var (
	aaUnserved  = []string{"log"}
	cdhUnserved = []string{
		"aa", "skip_sealed_secret_verification", "log",
		"image.work_dir", "image.sigstore_config",
		"image.registry_config",
		"image.max_concurrent_layer_downloads_per_image",
	}
)

func parseAA(text string, log *slog.Logger) (Measured, error) {
	var file aaFile
	if err := decodeForeign(text, &file, aaUnserved, keyAA, log); err != nil {
		return Measured{}, err
	}
	// guest-components takes 1 to 15 for RTMR0 to RTMR2, which are the firmware's.
	if pcr := file.EventLog.InitPCR; pcr != nil && *pcr >= 1 && *pcr <= 15 {
		return Measured{}, fmt.Errorf("eventlog_config.init_pcr: want 16 or above, which is RTMR3, got %d", *pcr)
	}
	kbs := file.TokenConfigs.KBS
	return Measured{
		KBS:      KBS{URL: kbs.URL, Cert: kbs.Cert, KeyAlgorithm: kbs.TEEKeyAlgorithm},
		CoCoAS:   file.TokenConfigs.CoCoAS,
		EventLog: EventLog{Enable: file.EventLog.Enable},
	}, nil
}

// cdhFile is confidential-data-hub's configuration as far as casemate obeys it.
type cdhFile struct {
	Socket      string       `toml:"socket"`
	Credentials []Credential `toml:"credentials"`
	KBC         struct {
		Name    string `toml:"name"`
		URL     string `toml:"url"`
		KBSCert string `toml:"kbs_cert"`
	} `toml:"kbc"`
	Image struct {
		Policy         string `toml:"image_security_policy"`
		PolicyURI      string `toml:"image_security_policy_uri"`
		CredentialsURI string `toml:"authenticated_registry_credentials_uri"`
		RegistriesURI  string `toml:"registry_configuration_uri"`
		Proxy          struct {
			HTTPS string `toml:"https_proxy"`
			HTTP  string `toml:"http_proxy"`
			No    string `toml:"no_proxy"`
		} `toml:"image_pull_proxy"`
		LookasideURI string   `toml:"sigstore_config_uri"`
		Roots        []string `toml:"extra_root_certificates"`
	} `toml:"image"`
}

// hubSocket is confidential-data-hub's own default.
const hubSocket = "unix:///run/confidential-containers/cdh.sock"

func parseCDH(text string, log *slog.Logger) (Measured, error) {
	var file cdhFile
	if err := decodeForeign(text, &file, cdhUnserved, keyCDH, log); err != nil {
		return Measured{}, err
	}
	if file.KBC.Name != "cc_kbc" {
		return Measured{}, fmt.Errorf("kbc.name: want %q, got %q", "cc_kbc", file.KBC.Name)
	}
	// Owners write this out as it is by default, so it may be repeated.
	if file.Socket != "" && file.Socket != hubSocket {
		return Measured{}, fmt.Errorf("socket: want %q, got %q: a socket is not initdata's to move", hubSocket, file.Socket)
	}
	image := Image{
		Policy: file.Image.Policy, PolicyURI: file.Image.PolicyURI,
		CredentialsURI: file.Image.CredentialsURI, RegistriesURI: file.Image.RegistriesURI, LookasideURI: file.Image.LookasideURI, Roots: file.Image.Roots,
	}
	image.HTTPSProxy, image.HTTPProxy, image.NoProxy = file.Image.Proxy.HTTPS, file.Image.Proxy.HTTP, file.Image.Proxy.No
	if image.PolicyURI != "" {
		image.Policy = "" // guest-components: the uri outranks the text
	}
	return Measured{KBS: KBS{URL: file.KBC.URL, Cert: file.KBC.KBSCert}, Image: image, Credentials: file.Credentials}, nil
}

// decodeForeign decodes another program's file: a key that it obeys and we do
// not is an error, a key that it ignores too is a warning.
func decodeForeign(text string, into any, unserved []string, name string, log *slog.Logger) error {
	meta, err := toml.Decode(text, into)
	if err != nil {
		return err
	}
	for _, key := range meta.Undecoded() {
		path := key.String()
		if slices.ContainsFunc(unserved, func(u string) bool { return path == u || strings.HasPrefix(path, u+".") }) {
			return fmt.Errorf("line %d: key %q is not served by casemate; leave it out", lineOf(text, key), path)
		}
		log.Warn("initdata key has no effect", "file", name, "key", path)
	}
	return exactCase(meta, text)
}
