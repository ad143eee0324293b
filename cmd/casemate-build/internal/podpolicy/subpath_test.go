// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/policy/replay"
)

// withPart is a pod with a volume and one part of it in its container.
func withPart(volume, mountPath, member string) string {
	return fmt.Sprintf(`
kind: Pod
metadata: {name: p}
spec:
  volumes: [{name: v, %s}]
  containers: [{name: c, image: busybox, volumeMounts: [{name: v, mountPath: %s, %s}]}]
`, volume, mountPath, member)
}

// copiedVolumes are those that kubelet fills on the host.
var copiedVolumes = []string{"configMap: {name: s}", "secret: {secretName: s}", "downwardAPI: {items: []}", "projected: {sources: []}"}

// TestSubPathRefused: a path that climbs, and a volume of which a part would be something else in a guest.
func TestSubPathRefused(t *testing.T) {
	for name, member := range map[string]string{
		"up": "subPath: ../x", "up from below": "subPath: a/../../x", "up and down again": "subPath: a/../b", "nothing but up": `subPath: ".."`,
		"absolute": "subPath: /etc/shadow", "the volume itself": `subPath: "."`, "twice a slash": "subPath: a//b", "slash at the end": "subPath: a/",
		"a dot within": "subPath: a/./b", "a NUL byte": `subPath: "a\0b"`, "blank in front of up": `subPath: "a/ /../../x"`,
	} {
		for _, volume := range copiedVolumes {
			_, err := Generate(t.Context(), []byte(withPart(volume, "/etc/c.conf", member)), images, Options{})
			if err == nil || !strings.Contains(err.Error(), "container c: volume v: subPath ") || !strings.Contains(err.Error(), "want a clean relative path that goes down only") {
				t.Errorf("%s, %s: got %v", name, volume, err)
			}
		}
	}
	for name, tt := range map[string]struct{ text, want string }{
		"emptyDir":                   {withPart("emptyDir: {}", "/v", "subPath: x"), "mount it whole"},
		"emptyDir in memory":         {withPart("emptyDir: {medium: Memory}", "/v", "subPath: x"), "mount it whole"},
		"from the environment":       {withPart(copiedVolumes[0], "/v", "subPathExpr: $(X)"), `subPathExpr "$(X)": the host alone knows`},
		"emptyDir, environment":      {withPart("emptyDir: {}", "/v", "subPathExpr: $(X)"), "subPathExpr"},
		"both":                       {withPart(copiedVolumes[0], "/v", "subPath: x, subPathExpr: y"), "subPathExpr"},
		"a claim":                    {withPart("persistentVolumeClaim: {claimName: x}", "/v", "subPath: x"), "no directory of the host"},
		"the host's":                 {withPart("hostPath: {path: /}", "/v", "subPath: etc"), "no directory of the host"},
		"place that climbs":          {withPart(copiedVolumes[0], "/etc/../bin/sh", "subPath: x"), `mountPath "/etc/../bin/sh"`},
		"place that is not absolute": {withPart(copiedVolumes[0], "etc", "subPath: x"), "mountPath"},
		"place with a slash behind":  {withPart(copiedVolumes[0], "/etc/x/", "subPath: x"), "mountPath"},
		"place of the root":          {withPart(copiedVolumes[0], "/", "subPath: x"), "mountPath"},
		"place with a NUL byte":      {withPart(copiedVolumes[0], `"/a\0"`, "subPath: x"), "mountPath"},
	} {
		_, err := Generate(t.Context(), []byte(tt.text), images, Options{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// TestSubPath: one file or directory of a volume is one copy more, at its own place, read-only, whatever it is called.
func TestSubPath(t *testing.T) {
	const at, good = "/etc/c.d/c+(x).conf", copies + "c+(x).conf"
	for _, volume := range copiedVolumes {
		p := load(t, generate(t, withPart(volume, at, "subPath: ..data/deep/..c.conf.."), Options{}))
		for i, msg := range []proto.Message{&kata.CreateSandboxRequest{Hostname: "p"}, request("s", "pause", &kata.Process{Args: []string{"/pause"}})} {
			if got := verdict(t, p, msg); got != "" {
				t.Fatalf("%s: request %d: %s", volume, i, got)
			}
		}
		ask := func(destination, source, kind string, options ...string) string {
			return verdict(t, p, request("a", "busybox", &kata.Process{Args: []string{"sh"}, Env: prepare().Env[:1]}, func(m *kata.CreateContainerRequest) {
				m.OCI.Mounts = append(m.OCI.Mounts, &kata.Mount{Destination: destination, Source: source, Type: kind, Options: options})
			}))
		}
		for name, got := range map[string]string{
			"writable":                 ask(at, good, "bind", "rbind", "rprivate", "rw"),
			"no word on writing":       ask(at, good, "bind", "rbind"),
			"read-only and writable":   ask(at, good, "bind", "rbind", "ro", "rw"),
			"writable all through":     ask(at, good, "bind", "rbind", "ro", "rrw"),
			"another place":            ask("/etc/c.d/sh", good, "bind", "rbind", "ro"),
			"the directory around":     ask("/etc/c.d", good, "bind", "rbind", "ro"),
			"a name as a pattern":      ask(at, copies+"cx.conf", "bind", "rbind", "ro"),
			"a name with more":         ask(at, good+".d", "bind", "rbind", "ro"),
			"below a tree":             ask(at, copies+"c.d/c+(x).conf", "bind", "rbind", "ro"),
			"by a parent":              ask(at, shared+"aa-0123456789abcdef-x/../aa-0123456789abcdef-c+(x).conf", "bind", "rbind", "ro"),
			"the guest's":              ask(at, "/etc/casemate/c+(x).conf", "bind", "rbind", "ro"),
			"an emptyDir":              ask(at, shared+"a/rootfs/local/c+(x).conf", "bind", "rbind", "ro"),
			"not bound":                ask(at, good, "overlay", "ro"),
			"the path of the pod file": ask(at, copies+"c.d/..data/deep/..c.conf..", "bind", "rbind", "ro"),
			"a line more":              ask(at, good+"\n", "bind", "rbind", "ro"),
		} {
			if got != "policy-denied" {
				t.Errorf("%s, %s: got %q", volume, name, got)
			}
		}
		if got := ask(at, good, "bind", "rbind", "rprivate", "ro"); got != "" {
			t.Errorf("%s: as kubelet and the runtime have it: got %q", volume, got)
		}
	}
}

// TestSubPathOfAnother: what one container has of a volume is nothing that its neighbour may have.
func TestSubPathOfAnother(t *testing.T) {
	generated, err := Generate(t.Context(), []byte(replay.PodFile), corpus(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := replay.Stacks()[0]
	p := load(t, generated)
	for _, step := range s.Life() {
		m, ok := step.Msg.(*kata.CreateContainerRequest)
		if !ok || m.ContainerId != s.ID("plain") {
			_ = p.Allow(t.Context(), step.Request(), step.Msg)
			continue
		}
		m = proto.Clone(m).(*kata.CreateContainerRequest)
		m.OCI.Mounts = append(m.OCI.Mounts, &kata.Mount{Destination: replay.OneFile, Source: s.Copied(s.ID("app"), replay.OneFile), Type: "bind", Options: []string{"rbind", "ro"}})
		if got := verdict(t, p, m); got != "policy-denied" {
			t.Errorf("got %q", got)
		}
		return
	}
	t.Error("the pod has no plain")
}
