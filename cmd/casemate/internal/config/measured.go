// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/casemate/casemate/agent/evidence"
)

// DefaultPath is where the measured root keeps casemate.toml.
const DefaultPath = "/etc/casemate/casemate.toml"

// maxFile caps casemate.toml: it is a page of text and two PEM blocks.
const maxFile = 1 << 20

// Measured is configuration that the evidence covers. The zero value trusts
// nothing: no KBS, no image policy, no registry over plain HTTP.
type Measured struct {
	// Workload selects the registration at the relying party. It comes from
	// initdata alone and authorises nothing.
	Workload string `toml:"workload"`
	// Debug is true in the initdata of a debug guest, where the relying party reads it. Such a
	// guest takes no other initdata, and no other guest takes this.
	Debug bool `toml:"debug"`
	// InitData is the file that holds the initdata of a guest that has no
	// initdata device. The bytes in it are still checked against the evidence.
	InitData string `toml:"initdata"`

	// TEE, when set, is the TEE that the machine must have. A plain TPM is used only when
	// "tpm" stands here: it protects no memory, so it is nothing to fall back on.
	TEE evidence.TEE `toml:"tee"`

	// Devices are what attests beside the TEE, "tpm" or "sampledevice". One that the machine
	// lacks is an error; one that is not named here attests nothing.
	Devices []evidence.TEE `toml:"devices"`

	KBS         KBS         `toml:"kbs"`
	CoCoAS      CoCoAS      `toml:"coco_as"`
	Image       Image       `toml:"image"`
	KeyProvider KeyProvider `toml:"keyprovider"`
	Services    Services    `toml:"services"`
	Agent       Agent       `toml:"agent"`
	EventLog    EventLog    `toml:"eventlog"`
	Vault       Vault       `toml:"vault"`
	AWS         AWS         `toml:"aws"`
	// SealedKeys are keys that sealed secrets are verified by, JWK text by the name that a
	// secret's header gives (kid). Names that are URIs of the relying party stay its own.
	SealedKeys map[string]string `toml:"sealed_keys"`
	// Credentials are secrets that the data hub writes to files before it serves.
	Credentials []Credential `toml:"credentials"`
	TestSNP     TestSNP      `toml:"testsnp"`

	// PodNetNS is the path of the network namespace that a peer pod's containers live in and its network is set up in.
	// Another program of the measured root keeps it; with it, volumes below /run/cloud-volumes may be mounted where
	// the tenant's policy says so. Empty is the guest's own network.
	PodNetNS string `toml:"pod_netns"`

	// Network, when set, makes the guest one that sets up its own network and runs its own containers: as PID 1 casemate
	// then serves no kata API.
	Network Network `toml:"network"`

	Scratch Scratch `toml:"scratch"`
	Disk    Disk    `toml:"disk"`
	// Volumes are the persistent volumes that may be created and opened, by their names.
	Volumes map[string]Volume `toml:"volume"`

	// Containers are started by casemate serve, and by casemate as PID 1 where Network is set.
	Containers []Container `toml:"container"`
}

// KBS names the relying party and what proves that it is the one meant.
type KBS struct {
	URL string `toml:"url"`
	// Cert is PEM text: the only roots accepted for the KBS's certificate.
	Cert string `toml:"cert"`
	// PlainHTTP allows an http URL. JWE hides a secret but authenticates nobody,
	// so start-up prints this as a weakness.
	PlainHTTP bool `toml:"plain_http"`
	// KeyAlgorithm is the TEE key: "ECDH-ES+A256KW-P256" (default),
	// "ECDH-ES+A256KW-P521" or "RSA-OAEP-256".
	KeyAlgorithm string `toml:"key_algorithm"`
}

// Image says where images come from and which are admitted.
type Image struct {
	// Store holds layers while they are in use, by default on the scratch of /run.
	Store string `toml:"store"`
	// Verity keeps the root hash of each layer in memory: whoever writes to the disk
	// below Store, or below scratch, can then neither change a layer nor bring an older
	// state of a block back. Where it cannot be had nothing is pulled.
	Verity bool `toml:"verity"`
	// Policy is policy.json as text; PolicyURI names it as file:// or kbs://.
	// Without either no image is admitted.
	Policy    string `toml:"policy"`
	PolicyURI string `toml:"policy_uri"`
	// CredentialsURI names an auth.json as file:// or kbs://.
	CredentialsURI string `toml:"credentials_uri"`
	// RegistriesURI names a registries.conf (mirrors, moves, blocked registries) as
	// file:// or kbs://.
	RegistriesURI string `toml:"registries_uri"`
	// LookasideURI names a registries.d file, which says where OpenPGP signatures
	// are kept, as file:// or kbs://.
	LookasideURI string `toml:"lookaside_uri"`
	// HTTPSProxy and HTTPProxy are URLs of the proxies for registries, NoProxy the
	// hosts, .domains and addresses that go without, divided by commas.
	HTTPSProxy string `toml:"https_proxy"`
	HTTPProxy  string `toml:"http_proxy"`
	NoProxy    string `toml:"no_proxy"`
	// InsecureRegistries are host[:port] names spoken to over plain HTTP.
	InsecureRegistries []string `toml:"insecure_registries"`
	// CertsDir is a directory in the form of containers-certs.d(5): CAs and client
	// certificates of single registries. Empty is none.
	CertsDir string `toml:"certs_dir"`
	// Roots are PEM blocks added to the system's roots for registries.
	Roots []string `toml:"roots"`
	// Layers are annotations of layers, by the layers' digests, for images whose
	// manifests do not bind their layers to devices (package verity/layer).
	Layers map[string]map[string]string `toml:"layers"`
}

// Agent is what the kata API does where initdata brings no policy.
type Agent struct {
	// Strict refuses the host every copy and gives it one line in place of each container's output. It says nothing
	// about a guest whose initdata has a policy.
	Strict bool `toml:"strict"`
}

// KeyProvider is the socket on which other tools unwrap layer keys.
type KeyProvider struct {
	// Listen is unix:///PATH or a loopback HOST:PORT; empty serves nothing.
	Listen string `toml:"listen"`
}

// TestSNP is the test signer's directory. Only builds with the tag testsnp, which
// are never released, have one; in any other build the key is an error.
type TestSNP struct {
	Dir string `toml:"dir"`
}

// Load reads casemate.toml. An unknown or repeated key is an error with its line.
func Load(path string) (Measured, error) {
	file, err := os.Open(path)
	if err != nil {
		return Measured{}, fmt.Errorf("reading the measured configuration: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return Measured{}, fmt.Errorf("reading the measured configuration %s: %w", path, err)
	}
	if len(text) > maxFile {
		return Measured{}, fmt.Errorf("reading the measured configuration %s: want at most %d bytes", path, maxFile)
	}
	m, err := parse(string(text))
	if err != nil {
		return Measured{}, fmt.Errorf("reading the measured configuration %s: %w", path, err)
	}
	if m.Workload != "" {
		return Measured{}, fmt.Errorf("reading the measured configuration %s: workload belongs into initdata, which the relying party compares", path)
	}
	if m.Debug {
		return Measured{}, fmt.Errorf("reading the measured configuration %s: debug belongs into initdata, which the relying party compares", path)
	}
	return m, nil
}

func parse(text string) (Measured, error) {
	var m Measured
	meta, err := toml.Decode(text, &m)
	if err != nil {
		if syntax, ok := errors.AsType[toml.ParseError](err); ok {
			return Measured{}, fmt.Errorf("line %d: %s", syntax.Position.Line, syntax.Message)
		}
		return Measured{}, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return Measured{}, fmt.Errorf("line %d: unknown key %q", lineOf(text, unknown[0]), unknown[0])
	}
	if err := exactCase(meta, text); err != nil {
		return Measured{}, err
	}
	return m, m.check()
}

// exactCase refuses a key in another spelling. The decoder matches names without
// regard to case, so url and URL would be one key with two values, of which chance
// takes one. Every name that is read here is lower-case.
func exactCase(meta toml.MetaData, text string) error {
	for _, key := range meta.Keys() {
		if key.String() != strings.ToLower(key.String()) {
			return fmt.Errorf("line %d: unknown key %q: want lower case", lineOf(text, key), key)
		}
	}
	return nil
}

// lineOf finds the line on which a key is set; the decoder does not keep it.
func lineOf(text string, key toml.Key) int {
	last := key[len(key)-1]
	for i, line := range strings.Split(text, "\n") {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		if strings.Trim(strings.TrimSpace(name), `"'`) == last || strings.Trim(strings.TrimSpace(line), "[]") == key.String() {
			return i + 1
		}
	}
	return 0
}

func (m Measured) check() error {
	if m.KBS.URL != "" && !strings.HasPrefix(m.KBS.URL, "https://") && !m.KBS.PlainHTTP {
		return fmt.Errorf("kbs.url %q: want https, or kbs.plain_http = true to name the weakness", m.KBS.URL)
	}
	if strings.HasPrefix(m.KBS.URL, "https://") && m.KBS.Cert == "" {
		return fmt.Errorf("kbs.url %q: want kbs.cert, the PEM certificate that the KBS is pinned to", m.KBS.URL)
	}
	if m.Image.Policy != "" && m.Image.PolicyURI != "" {
		return errors.New("image.policy and image.policy_uri: want one of them")
	}
	if m.PodNetNS != "" && (!path.IsAbs(m.PodNetNS) || path.Clean(m.PodNetNS) != m.PodNetNS) {
		return fmt.Errorf("pod_netns %q: want a clean absolute path", m.PodNetNS)
	}
	if m.TEE != "" {
		if _, err := evidence.ParseTEE(string(m.TEE)); err != nil {
			return fmt.Errorf("tee: %w", err)
		}
	}
	if err := m.checkDevices(); err != nil {
		return err
	}
	if m.EventLog.Require && !m.EventLog.Enable {
		return errors.New("eventlog.require: want eventlog.enable with it")
	}
	if m.Image.Store != "" && m.Scratch != (Scratch{}) {
		return errors.New("image.store and scratch: want one of them")
	}
	if m.PodNetNS != "" && m.Network.Mode != "" {
		return errors.New("pod_netns and network: want one of them")
	}
	return errors.Join(m.Network.check(), m.Scratch.check(), m.Disk.check(), m.checkMounts(), checkCredentials(m.Credentials), m.Vault.check(), m.AWS.check(), checkSealedKeys(m.SealedKeys), m.CoCoAS.check(), checkVolumes(m.Volumes), checkContainers(m.Containers), m.Services.check(m.own()))
}

// own lists the secrets that the guest fetches for itself.
func (m Measured) own() []string {
	list := []string{m.Image.CredentialsURI, m.Image.PolicyURI, m.Vault.TokenURI, m.AWS.CredentialURI, m.Disk.Key}
	for _, v := range m.Volumes {
		list = append(list, v.Key)
		if v.Grant != "" {
			list = append(list, v.Grant)
		}
	}
	return list
}

// Weaknesses lists, in words for the start-up log, each protection that the
// measured configuration switched off.
func (m Measured) Weaknesses() []string {
	var list []string
	if m.Debug {
		list = append(list, "debug: the host has a shell in this guest")
	}
	if m.KBS.PlainHTTP {
		list = append(list, "kbs.plain_http: the KBS is not authenticated; whoever is on the path may answer in its place")
	}
	if l := m.KeyProvider.Listen; l != "" && !strings.HasPrefix(l, "unix:") {
		list = append(list, fmt.Sprintf("keyprovider.listen: every process and container that shares the network reaches %s", l))
	}
	if m.Services.GetToken {
		list = append(list, "services.get_token: whoever opens the attestation agent's socket gets a key to every secret of the workload")
	}
	if m.Services.RESTToken {
		list = append(list, "services.rest_token: every container gets a key to every secret of the workload")
	}
	if m.CoCoAS.URL != "" {
		list = append(list, "coco_as: its tokens are bound to no key: whoever reads one can show it as this guest's")
	}
	if m.Services.RawEvidence {
		list = append(list, "services.raw_evidence: whoever asks for evidence can attest in this guest's name")
	}
	for _, r := range m.Image.InsecureRegistries {
		list = append(list, fmt.Sprintf("image.insecure_registries: %s is spoken to over plain HTTP", r))
	}
	if m.TEE == evidence.TPM {
		list = append(list, `tee = "tpm": nothing protects the guest's memory from its host`)
	}
	if slices.Contains(m.Devices, evidence.SampleDevice) {
		list = append(list, "devices: sampledevice proves nothing")
	}
	list = append(list, volumeWeaknesses(m.Volumes)...)
	if m.Disk != (Disk{}) && m.Disk.Verity == "" {
		list = append(list, "disk: a disk of this kind has no integrity; whoever holds it can change its blocks unnoticed")
	}
	if m.TestSNP.Dir != "" {
		list = append(list, "testsnp.dir: evidence is signed by a test key, not by a TEE")
	}
	return list
}

// tenantOnly refuses what initdata may not say: these settings are about the machine,
// not about the tenant's workload.
func (m Measured) tenantOnly() error {
	for key, set := range map[string]bool{
		"tee": m.TEE != "", "devices": len(m.Devices) > 0, "initdata": m.InitData != "", "image.store": m.Image.Store != "", "pod_netns": m.PodNetNS != "", "scratch": m.Scratch != Scratch{}, "network": m.Network.set(),
		"keyprovider.listen": m.KeyProvider.Listen != "", "testsnp.dir": m.TestSNP.Dir != "",
		"services.attestation_agent": m.Services.AttestationAgent != "", "services.data_hub": m.Services.DataHub != "",
		"services.rest": m.Services.REST != "", "services.rest_features": m.Services.RESTFeatures != "",
	} {
		if set {
			return fmt.Errorf("%s belongs into the measured root's casemate.toml", key)
		}
	}
	return nil
}

// join merges what initdata says into m. Either may leave a key empty; where both set
// it they must agree, since neither source outranks the other.
func (m Measured) join(o Measured) (Measured, error) {
	var failures []error
	var err error
	text := func(key string, a *string, b string) {
		if *a != "" && b != "" && *a != b {
			failures = append(failures, fmt.Errorf("%s is set twice: %q and %q", key, *a, b))
		}
		if *a == "" {
			*a = b
		}
	}
	text("workload", &m.Workload, o.Workload)
	text("kbs.url", &m.KBS.URL, o.KBS.URL)
	text("kbs.cert", &m.KBS.Cert, o.KBS.Cert)
	text("kbs.key_algorithm", &m.KBS.KeyAlgorithm, o.KBS.KeyAlgorithm)
	text("coco_as.url", &m.CoCoAS.URL, o.CoCoAS.URL)
	text("coco_as.cert", &m.CoCoAS.Cert, o.CoCoAS.Cert)
	text("image.policy", &m.Image.Policy, o.Image.Policy)
	text("image.policy_uri", &m.Image.PolicyURI, o.Image.PolicyURI)
	text("image.credentials_uri", &m.Image.CredentialsURI, o.Image.CredentialsURI)
	text("image.registries_uri", &m.Image.RegistriesURI, o.Image.RegistriesURI)
	text("image.lookaside_uri", &m.Image.LookasideURI, o.Image.LookasideURI)
	text("image.certs_dir", &m.Image.CertsDir, o.Image.CertsDir)
	text("image.https_proxy", &m.Image.HTTPSProxy, o.Image.HTTPSProxy)
	text("image.http_proxy", &m.Image.HTTPProxy, o.Image.HTTPProxy)
	text("image.no_proxy", &m.Image.NoProxy, o.Image.NoProxy)
	text("disk.workload_id", &m.Disk.WorkloadID, o.Disk.WorkloadID)
	text("disk.key", &m.Disk.Key, o.Disk.Key)
	text("disk.verity", &m.Disk.Verity, o.Disk.Verity)
	text("vault.url", &m.Vault.URL, o.Vault.URL)
	text("vault.cert", &m.Vault.Cert, o.Vault.Cert)
	text("vault.token_uri", &m.Vault.TokenURI, o.Vault.TokenURI)
	text("vault.namespace", &m.Vault.Namespace, o.Vault.Namespace)
	text("vault.transit", &m.Vault.Transit, o.Vault.Transit)
	text("vault.kv", &m.Vault.KV, o.Vault.KV)
	list := func(key string, a *[]string, b []string) {
		if len(*a) > 0 && len(b) > 0 && !slices.Equal(*a, b) {
			failures = append(failures, fmt.Errorf("%s is set twice: %q and %q", key, *a, b))
		}
		if len(*a) == 0 {
			*a = b
		}
	}
	list("image.insecure_registries", &m.Image.InsecureRegistries, o.Image.InsecureRegistries)
	list("image.roots", &m.Image.Roots, o.Image.Roots)
	if m.Image.Layers, err = joinLayers(m.Image.Layers, o.Image.Layers); err != nil {
		failures = append(failures, err)
	}
	list("services.secure_mount", &m.Services.SecureMount, o.Services.SecureMount)
	list("services.rest_resources", &m.Services.RESTResources, o.Services.RESTResources)
	m.Debug = m.Debug || o.Debug
	m.Agent.Strict = m.Agent.Strict || o.Agent.Strict
	m.Services.GetToken = m.Services.GetToken || o.Services.GetToken
	m.Services.RESTToken = m.Services.RESTToken || o.Services.RESTToken
	m.EventLog.Enable = m.EventLog.Enable || o.EventLog.Enable
	m.EventLog.Require = m.EventLog.Require || o.EventLog.Require
	m.Services.RawEvidence = m.Services.RawEvidence || o.Services.RawEvidence
	if len(m.Credentials) > 0 && len(o.Credentials) > 0 && !slices.Equal(m.Credentials, o.Credentials) {
		failures = append(failures, errors.New("credentials are set twice, and differ"))
	}
	if len(m.Credentials) == 0 {
		m.Credentials = o.Credentials
	}
	if len(m.Containers) > 0 && len(o.Containers) > 0 && !equalContainers(m.Containers, o.Containers) {
		failures = append(failures, errors.New("containers are set twice, and differ"))
	}
	if len(m.Containers) == 0 {
		m.Containers = o.Containers
	}
	if m.AWS != (AWS{}) && o.AWS != (AWS{}) && m.AWS != o.AWS {
		failures = append(failures, errors.New("aws is set twice, and differs"))
	}
	if m.AWS == (AWS{}) {
		m.AWS = o.AWS
	}
	if m.Volumes, err = joinVolumes(m.Volumes, o.Volumes); err != nil {
		failures = append(failures, err)
	}
	if len(o.SealedKeys) > 0 {
		if m.SealedKeys, err = joinSealedKeys(m.SealedKeys, o.SealedKeys); err != nil {
			failures = append(failures, err)
		}
	}
	if err := errors.Join(m.Services.check(m.own()), m.checkReplay()); err != nil {
		failures = append(failures, err)
	}
	m.KBS.PlainHTTP = m.KBS.PlainHTTP || o.KBS.PlainHTTP
	m.Image.Verity = m.Image.Verity || o.Image.Verity
	return m, errors.Join(failures...)
}
