// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// Credential is a secret of the relying party and the file that it is written to.
type Credential struct {
	ResourceURI string `toml:"resource_uri"`
	// Path lies below CredentialDir.
	Path string `toml:"path"`
	// Lease, when set, is how long the file stands without the relying party's word
	// ("10m"): the secret is fetched again after half of it, MinLease to MaxLease.
	Lease time.Duration `toml:"lease"`
}

// Bounds of a lease: a relying party is not asked all the time, and a revocation is
// heard within a day.
const (
	MinLease = 10 * time.Second
	MaxLease = 24 * time.Hour
)

// CredentialDir is the only place for credentials, in memory.
const CredentialDir = "/run/confidential-containers/cdh/kbs"

// checkCredentials refuses places outside CredentialDir and two secrets for one file.
func checkCredentials(list []Credential) error {
	paths := map[string]bool{}
	for _, c := range list {
		if !strings.HasPrefix(c.ResourceURI, "kbs:///") {
			return fmt.Errorf("credentials: resource_uri %q, want kbs:///REPOSITORY/TYPE/TAG", c.ResourceURI)
		}
		rest, ok := strings.CutPrefix(c.Path, CredentialDir+"/")
		if !ok || path.Clean(c.Path) != c.Path || strings.HasPrefix(path.Base(rest), ".") {
			return fmt.Errorf("credentials: path %q, want a file below %s", c.Path, CredentialDir)
		}
		if c.Lease != 0 && (c.Lease < MinLease || c.Lease > MaxLease) {
			return fmt.Errorf("credentials: lease %s, want %s to %s", c.Lease, MinLease, MaxLease)
		}
		if paths[c.Path] {
			return fmt.Errorf("credentials: path %q is named twice", c.Path)
		}
		paths[c.Path] = true
	}
	return nil
}

// Vault is the HashiCorp Vault or OpenBao server that sealed secrets of provider "vault"
// come from.
type Vault struct {
	// URL is https://HOST[:PORT]; empty is none.
	URL string `toml:"url"`
	// Cert is PEM text: the only roots accepted for the server's certificate.
	Cert string `toml:"cert"`
	// TokenURI is the secret of the relying party that is the server's token.
	TokenURI string `toml:"token_uri"`
	// Namespace, Transit and KV are the server's namespace and the mounts of its two
	// engines; empty is the root and the default mounts.
	Namespace string `toml:"namespace"`
	Transit   string `toml:"transit"`
	KV        string `toml:"kv"`
}

func (v Vault) check() error {
	if v == (Vault{}) {
		return nil
	}
	if !strings.HasPrefix(v.URL, "https://") || v.Cert == "" {
		return fmt.Errorf("vault.url %q: want https, and vault.cert, the PEM certificate that it is pinned to", v.URL)
	}
	if !strings.HasPrefix(v.TokenURI, "kbs:///") {
		return fmt.Errorf("vault.token_uri %q: want kbs:///REPOSITORY/TYPE/TAG", v.TokenURI)
	}
	return nil
}

// AWS is the region whose Key Management Service and Secrets Manager sealed secrets of
// provider "aws" come from.
type AWS struct {
	// Region is such as eu-central-1; empty is none.
	Region string `toml:"region"`
	// Cert is PEM text: the only roots accepted for the services' certificates.
	Cert string `toml:"cert"`
	// CredentialURI is the secret of the relying party that is a credential.json.
	CredentialURI string `toml:"credential_uri"`
	// KMSURL and SecretsURL are https://HOST[:PORT]; empty is the region's public address.
	KMSURL     string `toml:"kms_url"`
	SecretsURL string `toml:"secrets_url"`
}

func (a AWS) check() error {
	if a == (AWS{}) {
		return nil
	}
	if a.Region == "" || a.Cert == "" {
		return fmt.Errorf("aws.region %q: want a region, and aws.cert, the PEM certificates that its services are pinned to", a.Region)
	}
	if !strings.HasPrefix(a.CredentialURI, "kbs:///") {
		return fmt.Errorf("aws.credential_uri %q: want kbs:///REPOSITORY/TYPE/TAG", a.CredentialURI)
	}
	for _, address := range []string{a.KMSURL, a.SecretsURL} {
		if address != "" && !strings.HasPrefix(address, "https://") {
			return fmt.Errorf("aws.kms_url or aws.secrets_url %q: want https", address)
		}
	}
	return nil
}

// checkSealedKeys refuses names that are, or could be taken for, the relying party's.
func checkSealedKeys(keys map[string]string) error {
	for name, jwk := range keys {
		if name == "" || name[0] == '.' || strings.ContainsAny(name, ":/") || jwk == "" {
			return fmt.Errorf("sealed_keys: %.128q: want a name that is neither a URI nor a path, and a JWK", name)
		}
	}
	return nil
}

// joinSealedKeys adds what initdata names: a name means one key.
func joinSealedKeys(a, b map[string]string) (map[string]string, error) {
	all := map[string]string{}
	for _, keys := range []map[string]string{a, b} {
		for name, jwk := range keys {
			if old, ok := all[name]; ok && old != jwk {
				return nil, fmt.Errorf("sealed_keys: %.128q is set twice, and differs", name)
			}
			all[name] = jwk
		}
	}
	return all, nil
}
