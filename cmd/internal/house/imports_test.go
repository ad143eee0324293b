// SPDX-License-Identifier: Apache-2.0

package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/casemate/casemate/"

const tags = "containers_image_openpgp netgo osusergo runc_nocriu grpcnotrace seccomp"

// allowed lists, for each package below the top-level folders, the packages of
// ours and the third-party modules that it imports itself. A package that is
// missing here fails the test: its place in the house is decided first.
var allowed = map[string]struct {
	ours    []string
	modules []string
}{
	"agent":                                 {ours: []string{"agent/api/kata", "agent/frames"}, modules: []string{"github.com/containerd/ttrpc", "github.com/mdlayher/vsock", "golang.org/x/sync", "golang.org/x/sys", "google.golang.org/grpc", "google.golang.org/protobuf"}},
	"agent/api/attestation":                 {modules: []string{"github.com/containerd/ttrpc", "google.golang.org/protobuf"}},
	"agent/api/datahub":                     {modules: []string{"github.com/containerd/ttrpc", "google.golang.org/protobuf"}},
	"agent/api/kata":                        {modules: []string{"github.com/containerd/ttrpc", "google.golang.org/protobuf"}},
	"agent/attest":                          {ours: []string{"agent/evidence"}, modules: []string{"github.com/go-json-experiment/json", "github.com/google/go-configfs-tsm", "github.com/google/go-tpm"}},
	"agent/attest/snptest":                  {ours: []string{"agent/attest/snptest/chip", "agent/evidence"}, modules: []string{"github.com/google/go-sev-guest"}},
	"agent/attest/snptest/chip":             {ours: []string{"agent/evidence"}, modules: []string{"github.com/BurntSushi/toml"}},
	"agent/attest/tdxtest":                  {modules: []string{"github.com/google/go-configfs-tsm"}},
	"agent/cdi":                             {modules: []string{"github.com/opencontainers/runtime-spec", "go.yaml.in/yaml/v3", "golang.org/x/sys"}},
	"agent/container":                       {ours: []string{"agent/container/reexec"}, modules: []string{"github.com/opencontainers/cgroups", "github.com/opencontainers/runc", "github.com/opencontainers/runtime-spec", "github.com/sirupsen/logrus", "golang.org/x/sys"}},
	"agent/container/reexec":                {modules: []string{"github.com/opencontainers/runc"}},
	"agent/eventlog":                        {modules: []string{"golang.org/x/sys"}},
	"agent/evidence":                        {modules: []string{"github.com/go-json-experiment/json"}},
	"agent/frames":                          {modules: []string{"github.com/containerd/ttrpc", "golang.org/x/sync", "google.golang.org/grpc", "google.golang.org/protobuf"}},
	"agent/guest":                           {modules: []string{"github.com/vishvananda/netlink", "golang.org/x/sys"}},
	"agent/hotplug":                         {modules: []string{"github.com/opencontainers/runtime-spec", "golang.org/x/sys"}},
	"agent/initdata":                        {ours: []string{"agent/evidence"}, modules: []string{"github.com/BurntSushi/toml"}},
	"agent/kbs":                             {ours: []string{"agent/evidence"}, modules: []string{"github.com/go-json-experiment/json"}},
	"agent/kbs/kbstest":                     {ours: []string{"agent/evidence"}},
	"agent/network":                         {ours: []string{"agent/network/dhcp"}, modules: []string{"github.com/vishvananda/netlink", "golang.org/x/sys"}},
	"agent/network/dhcp":                    {modules: []string{"golang.org/x/sys"}},
	"agent/pod":                             {ours: []string{"agent/api/kata", "agent/container"}, modules: []string{"github.com/containerd/ttrpc", "github.com/go-json-experiment/json", "github.com/opencontainers/cgroups", "github.com/opencontainers/runtime-spec", "github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/sys", "google.golang.org/grpc", "google.golang.org/protobuf"}},
	"agent/policy":                          {ours: []string{"agent", "agent/api/kata"}, modules: []string{"github.com/go-json-experiment/json", "github.com/open-policy-agent/opa", "google.golang.org/protobuf"}},
	"agent/policy/replay":                   {ours: []string{"agent/api/kata"}, modules: []string{"golang.org/x/sys", "google.golang.org/protobuf"}},
	"agent/services":                        {ours: []string{"agent/api/attestation", "agent/api/datahub", "agent/evidence", "agent/frames", "keyprovider/keyproviderpb"}, modules: []string{"github.com/containerd/ttrpc", "github.com/go-json-experiment/json", "golang.org/x/net", "google.golang.org/grpc"}},
	"cmd/casemate":                          {ours: []string{"agent", "agent/attest", "agent/cdi", "agent/container", "agent/eventlog", "agent/evidence", "agent/guest", "agent/hotplug", "agent/initdata", "agent/kbs", "agent/network", "agent/pod", "agent/policy", "agent/services", "cmd/casemate/internal/config", "cmd/casemate/internal/doctor", "cmd/casemate/internal/explain", "cmd/casemate/internal/incidents", "cmd/casemate/internal/standalone", "cmd/internal/version", "imagepull", "imagepull/trust", "keyprovider", "keyprovider/aws", "keyprovider/vault", "storage", "storage/devmapper", "storage/ext4", "storage/krun", "storage/luks", "verity", "verity/layer"}, modules: []string{"github.com/containerd/ttrpc", "github.com/go-json-experiment/json", "github.com/moby/sys/mountinfo", "github.com/opencontainers/runtime-spec", "github.com/sirupsen/logrus", "golang.org/x/sync", "golang.org/x/sys", "google.golang.org/grpc"}},
	"cmd/casemate-build":                    {ours: []string{"agent/evidence", "agent/initdata", "cmd/casemate-build/internal/cosign", "cmd/casemate-build/internal/cwdisk", "cmd/casemate-build/internal/encrypt", "cmd/casemate-build/internal/image", "cmd/casemate-build/internal/layers", "cmd/casemate-build/internal/podpolicy", "cmd/internal/measured", "cmd/internal/owner", "cmd/internal/version", "keyprovider", "keyprovider/aws", "keyprovider/vault", "rootfs/image", "rootfs/kernel", "rootfs/measure", "storage/krun", "verity"}, modules: []string{"github.com/BurntSushi/toml", "github.com/go-json-experiment/json", "github.com/google/go-containerregistry", "github.com/google/uuid", "github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/term"}},
	"cmd/casemate-build/internal/cosign":    {ours: []string{"cmd/casemate-build/internal/image"}, modules: []string{"github.com/go-json-experiment/json", "github.com/google/go-containerregistry", "golang.org/x/crypto"}},
	"cmd/casemate-build/internal/cwdisk":    {ours: []string{"rootfs/ext4", "storage/krun", "storage/luks", "verity"}, modules: []string{"github.com/go-json-experiment/json", "golang.org/x/crypto", "golang.org/x/sys"}},
	"cmd/casemate-build/internal/encrypt":   {ours: []string{"cmd/casemate-build/internal/image", "keyprovider"}, modules: []string{"github.com/containers/ocicrypt", "github.com/google/go-containerregistry", "github.com/opencontainers/go-digest"}},
	"cmd/casemate-build/internal/image":     {ours: []string{"cmd/internal/version"}, modules: []string{"github.com/go-json-experiment/json", "github.com/google/go-containerregistry"}},
	"cmd/casemate-build/internal/layers":    {ours: []string{"cmd/casemate-build/internal/image", "imagepull/unpack", "imagepull/unpack/erofs", "verity", "verity/layer"}, modules: []string{"github.com/google/go-containerregistry", "github.com/klauspost/compress"}},
	"cmd/casemate-build/internal/podpolicy": {modules: []string{"go.yaml.in/yaml/v3"}},
	"cmd/casemate/internal/config":          {ours: []string{"agent/evidence", "agent/network/dhcp"}, modules: []string{"github.com/BurntSushi/toml"}},
	"cmd/casemate/internal/doctor":          {},
	"cmd/casemate/internal/explain":         {ours: []string{"agent/evidence", "agent/initdata", "agent/kbs", "agent/policy"}, modules: []string{"github.com/BurntSushi/toml", "github.com/go-json-experiment/json"}},
	"cmd/casemate/internal/incidents":       {ours: []string{"agent/evidence", "agent/kbs"}},
	"cmd/casemate/internal/standalone":      {modules: []string{"github.com/go-json-experiment/json"}},
	"cmd/keybroker":                         {ours: []string{"agent/evidence", "cmd/internal/measured", "cmd/internal/owner", "cmd/internal/version", "cmd/keybroker/internal/api", "cmd/keybroker/internal/audit", "cmd/keybroker/internal/policy", "cmd/keybroker/internal/store", "cmd/keybroker/internal/token", "cmd/keybroker/internal/verifier"}, modules: []string{"github.com/go-json-experiment/json", "github.com/spf13/cobra", "github.com/spf13/pflag"}},
	"cmd/keybroker/internal/api":            {ours: []string{"agent/evidence", "agent/initdata", "cmd/internal/owner", "cmd/keybroker/internal/audit", "cmd/keybroker/internal/policy", "cmd/keybroker/internal/store", "cmd/keybroker/internal/token", "cmd/keybroker/internal/verifier"}, modules: []string{"github.com/BurntSushi/toml", "github.com/go-json-experiment/json", "golang.org/x/net", "golang.org/x/time"}},
	"cmd/keybroker/internal/audit":          {ours: []string{"agent/evidence", "cmd/internal/owner", "cmd/keybroker/internal/verifier"}, modules: []string{"github.com/go-json-experiment/json"}},
	"cmd/keybroker/internal/policy":         {ours: []string{"cmd/internal/owner"}, modules: []string{"github.com/go-json-experiment/json", "github.com/open-policy-agent/opa"}},
	"cmd/keybroker/internal/store":          {ours: []string{"agent/evidence", "cmd/internal/owner"}, modules: []string{"go.etcd.io/bbolt"}},
	"cmd/keybroker/internal/token":          {ours: []string{"agent/evidence", "cmd/keybroker/internal/verifier"}, modules: []string{"github.com/go-json-experiment/json"}},
	"cmd/keybroker/internal/verifier":       {ours: []string{"agent/evidence", "cmd/internal/owner"}, modules: []string{"github.com/go-json-experiment/json", "github.com/google/go-sev-guest", "golang.org/x/time"}},
	"imagepull":                             {ours: []string{"imagepull/trust", "imagepull/unpack", "imagepull/unpack/erofs"}, modules: []string{"github.com/BurntSushi/toml", "github.com/go-json-experiment/json", "github.com/google/go-containerregistry", "github.com/klauspost/compress", "github.com/moby/sys/user", "github.com/opencontainers/image-spec", "github.com/opencontainers/runtime-spec", "go.yaml.in/yaml/v3", "golang.org/x/net", "golang.org/x/sync", "golang.org/x/sys"}},
	"imagepull/trust":                       {modules: []string{"github.com/ProtonMail/go-crypto", "github.com/go-json-experiment/json", "github.com/google/go-containerregistry"}},
	"imagepull/unpack":                      {ours: []string{"imagepull/unpack/erofs"}, modules: []string{"golang.org/x/sys"}},
	"imagepull/unpack/erofs":                {modules: []string{"golang.org/x/sys"}},
	"keyprovider":                           {ours: []string{"keyprovider/keyproviderpb"}, modules: []string{"github.com/go-json-experiment/json", "golang.org/x/net", "golang.org/x/sys", "google.golang.org/grpc"}},
	"keyprovider/aws":                       {modules: []string{"github.com/go-json-experiment/json"}},
	"keyprovider/keyproviderpb":             {modules: []string{"github.com/containerd/ttrpc", "google.golang.org/grpc", "google.golang.org/protobuf"}},
	"keyprovider/vault":                     {modules: []string{"github.com/go-json-experiment/json"}},
	"keyprovider/vault/vaulttest":           {},
	"rootfs/cpio":                           {modules: []string{"golang.org/x/sys"}},
	"rootfs/ext4":                           {modules: []string{"golang.org/x/sys"}},
	"rootfs/image":                          {ours: []string{"rootfs/cpio", "rootfs/ext4", "verity"}, modules: []string{"github.com/BurntSushi/toml", "github.com/erofs/go-erofs", "github.com/klauspost/compress", "golang.org/x/sys"}},
	"rootfs/kernel":                         {modules: []string{"github.com/klauspost/compress", "golang.org/x/sys"}},
	"rootfs/measure":                        {modules: []string{"github.com/ulikunitz/xz"}},
	"rootfs/measure/measuretest":            {modules: []string{"github.com/ulikunitz/xz"}},
	"rootfs/vmtest":                         {ours: []string{"rootfs/cpio", "rootfs/kernel", "rootfs/vmtest/remote", "rootfs/vmtest/vsockdev"}},
	"rootfs/vmtest/remote":                  {},
	"rootfs/vmtest/vsockdev":                {modules: []string{"golang.org/x/sys"}},
	"storage":                               {ours: []string{"storage/devmapper", "storage/luks"}, modules: []string{"golang.org/x/sys"}},
	"storage/devmapper":                     {modules: []string{"golang.org/x/sys"}},
	"storage/ext4":                          {},
	"storage/krun":                          {modules: []string{"github.com/go-json-experiment/json"}},
	"storage/luks":                          {modules: []string{"github.com/go-json-experiment/json", "github.com/google/uuid", "golang.org/x/crypto"}},
	"verity":                                {ours: []string{"verity/sha256x2"}},
	"verity/layer":                          {ours: []string{"verity"}},
	"verity/sha256x2":                       {modules: []string{"golang.org/x/sys"}},
}

type goPackage struct {
	ImportPath string
	Imports    []string
	Dir        string
	GoFiles    []string
	CgoFiles   []string
	Module     *struct{ Path string }
}

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-tags", tags, "-json=ImportPath,Dir,GoFiles,CgoFiles,Imports,Module"}, args...)...)
	cmd.Dir = "../../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.Bytes())
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImports(t *testing.T) {
	moduleOf := map[string]string{}
	for _, p := range list(t, "-deps", "./...") {
		if p.Module != nil {
			moduleOf[p.ImportPath] = p.Module.Path
		}
	}
	seen := map[string]bool{}
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(name, "cmd/internal/") {
			continue // tools of the repository itself
		}
		seen[name] = true
		want, ok := allowed[name]
		if !ok {
			t.Errorf("%s has no row in the import table", name)
			continue
		}
		for _, path := range p.Imports {
			switch mod := moduleOf[path]; {
			case strings.HasPrefix(path, module):
				if !slices.Contains(want.ours, strings.TrimPrefix(path, module)) {
					t.Errorf("%s imports %s, which its row does not allow", name, path)
				}
			case mod != "":
				if !slices.Contains(want.modules, mod) {
					t.Errorf("%s uses module %s (%s), which its row does not allow", name, mod, path)
				}
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("the import table has a row for %s, which does not exist", name)
		}
	}
}

// Programs must not link what only others need: the guest's size is its trusted
// computing base.
func TestLinked(t *testing.T) {
	for _, tt := range []struct {
		program   string
		forbidden []string
	}{
		{"./cmd/casemate", []string{
			"github.com/spf13/cobra",                   // the owner's tools
			"go.etcd.io/bbolt",                         // keybroker's store
			"github.com/google/go-sev-guest/client",    // registers global flags
			"github.com/google/go-sev-guest/testing",   // the test signer
			"github.com/google/go-tdx-guest/client",    // registers global flags
			"github.com/google/go-sev-guest/verify",    // the guest never verifies
			"github.com/open-policy-agent/opa/v1/rego", // topdown alone serves the guest
			"net/http/pprof", "expvar", "html/template", "testing",
		}},
		{"./cmd/keybroker", []string{
			"github.com/opencontainers/runc/libcontainer", module + "imagepull", module + "agent/kbs", "testing",
		}},
		{"./cmd/casemate-build", []string{
			"github.com/opencontainers/runc/libcontainer", "go.etcd.io/bbolt", module + "agent/kbs", "testing",
		}},
	} {
		t.Run(tt.program, func(t *testing.T) {
			linked := map[string]bool{}
			for _, p := range list(t, "-deps", tt.program) {
				linked[p.ImportPath] = true
			}
			for _, path := range tt.forbidden {
				if linked[path] {
					t.Errorf("%s links %s", tt.program, path)
				}
			}
		})
	}
}
