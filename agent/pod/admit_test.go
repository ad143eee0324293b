// SPDX-License-Identifier: Apache-2.0

package pod_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/casemate/casemate/agent/pod"
)

func TestAsImageSays(t *testing.T) {
	image := specs.Process{
		Args: []string{"/app", "--serve"}, Cwd: "/srv", Env: []string{"PATH=/bin", "MODE=safe", "KUBERNETES_SERVICE_HOST=broker.example"},
		User: specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{34, 50}},
	}
	for _, tt := range []struct {
		name   string
		change func(*specs.Process)
		want   string // "" admits
	}{
		{"as the image says", func(*specs.Process) {}, ""},
		{"in another order", func(p *specs.Process) { slices.Reverse(p.Env) }, ""},
		{"with Kubernetes' variables", func(p *specs.Process) {
			p.Env = append(p.Env, "HOSTNAME=pod-1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443", "KUBERNETES_SERVICE_PORT_HTTPS=443")
		}, ""},
		{"theft by a shell", func(p *specs.Process) { p.Args = []string{"sh", "-c", "fetch 127.0.0.1:8006/cdh/resource/a/b/c"} }, "command line"},
		{"another argument", func(p *specs.Process) { p.Args = append(p.Args, "--insecure") }, "command line"},
		{"fewer arguments", func(p *specs.Process) { p.Args = p.Args[:1] }, "command line"},
		{"no arguments", func(p *specs.Process) { p.Args = nil }, "command line"},
		{"working directory", func(p *specs.Process) { p.Cwd = "/" }, "working directory"},
		{"root", func(p *specs.Process) { p.User.UID = 0 }, "the user"},
		{"group", func(p *specs.Process) { p.User.GID = 0 }, "the user"},
		{"one more group", func(p *specs.Process) { p.User.AdditionalGids = []uint32{0} }, "a group"},
		{"one group less", func(p *specs.Process) { p.User.AdditionalGids = nil }, ""},
		{"LD_PRELOAD", func(p *specs.Process) { p.Env = append(p.Env, "LD_PRELOAD=/x.so") }, "environment"},
		{"changed variable", func(p *specs.Process) {
			p.Env = []string{"PATH=/bin", "MODE=debug", "KUBERNETES_SERVICE_HOST=broker.example"}
		}, "environment"},
		{"second value", func(p *specs.Process) { p.Env = append(p.Env, "MODE=debug") }, "environment"},
		{"service variable that the image sets", func(p *specs.Process) { p.Env = append(p.Env, "KUBERNETES_SERVICE_HOST=6.6.6.6") }, "environment"},
		{"missing variable", func(p *specs.Process) { p.Env = p.Env[:1] }, "environment"},
		{"another PATH", func(p *specs.Process) {
			p.Env = append(p.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
		}, "environment"},
		{"service variable with more behind it", func(p *specs.Process) { p.Env = append(p.Env, "KUBERNETES_SERVICE_HOST=x\nLD_PRELOAD=/x.so") }, "environment"},
		{"another service's variable", func(p *specs.Process) { p.Env = append(p.Env, "KBS_SERVICE_HOST=6.6.6.6") }, "environment"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := image
			p.Args, p.Env = slices.Clone(image.Args), slices.Clone(image.Env)
			tt.change(&p)
			err := pod.AsImageSays(&image, &p)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	bare := specs.Process{Args: []string{"/app"}, Cwd: "/"}
	p := bare
	p.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if err := pod.AsImageSays(&bare, &p); err != nil {
		t.Errorf("the engines' PATH for an image without one: %v", err)
	}
}
