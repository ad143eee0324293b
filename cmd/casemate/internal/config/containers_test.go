// SPDX-License-Identifier: Apache-2.0

package config

import (
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

func TestContainers(t *testing.T) {
	const head = "[[container]]\nname = 'web'\nimage = 'r/i:1'\n"
	volume := strings.Replace(volumeText, "[volume.data]\n", "[volume.data]\ndevice = '/dev/vdb'\n", 1)
	for _, tt := range []struct{ name, text, wantErr string }{
		{name: "all of it", text: volume + head + "args = ['a']\nenv = ['A=b']\nsealed_env = ['B=sealed.x.y.z']\nrestart = 'on-failure'\nuser = '1:2'\nvolumes = [{volume = 'data', path = '/d', read_only = true}]\n"},
		{name: "no image", text: "[[container]]\nname = 'web'\n", wantErr: "image"},
		{name: "a name that is a path", text: "[[container]]\nname = '../x'\nimage = 'i'\n", wantErr: "want a name"},
		{name: "two of one name", text: head + head, wantErr: "used twice"},
		{name: "a restart policy that does not exist", text: head + "restart = 'unless-stopped'\n", wantErr: "restart"},
		{name: "a sealed value where it would be handed on", text: head + "env = ['A=sealed.x']\n", wantErr: "belongs into sealed_env"},
		{name: "a plain value where a secret is meant", text: head + "sealed_env = ['A=b']\n", wantErr: "A is not sealed"},
		{name: "one variable with two values", text: head + "env = ['A=b']\nsealed_env = ['A=sealed.x']\n", wantErr: "set twice"},
		{name: "a variable without a name", text: head + "env = ['=b']\n", wantErr: "NAME=VALUE"},
		{name: "a volume over the root", text: volume + head + "volumes = [{volume = 'data', path = '/'}]\n", wantErr: "clean absolute"},
		{name: "a volume outside the container", text: volume + head + "volumes = [{volume = 'data', path = '/a/../..'}]\n", wantErr: "clean absolute"},
		{name: "a volume that is not configured", text: head + "volumes = [{volume = 'data', path = '/d'}]\n", wantErr: `volume "data"`},
		{name: "a volume without a device", text: volumeText + head + "volumes = [{volume = 'data', path = '/d'}]\n", wantErr: "with a device"},
		{name: "a directory of the host as device", text: strings.Replace(volume, "/dev/vdb", "/dev/../tmp/x", 1) + head, wantErr: "want /dev/NAME"},
		{name: "an unknown key", text: head + "privileged = true\n", wantErr: `unknown key "container.privileged"`},
		{name: "more than the cap", text: strings.Repeat("[[container]]\nname = 'x'\nimage = 'i'\n", MaxContainers+1), wantErr: "at most 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := parse(tt.text)
			if err == nil {
				err = m.CheckContainerVolumes()
			}
			if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Fatalf("got %v, want %q", err, tt.wantErr)
			}
			if tt.wantErr != "" {
				return
			}
			want := []Container{{
				Name: "web", Image: "r/i:1", Args: []string{"a"}, Env: []string{"A=b"}, SealedEnv: []string{"B=sealed.x.y.z"},
				Restart: RestartOnFailure, User: "1:2", Volumes: []Mount{{"data", "/d", true}},
			}}
			if !reflect.DeepEqual(m.Containers, want) {
				t.Errorf("got %+v", m.Containers)
			}
		})
	}
}

// Either source may declare the containers; initdata that the host has written cannot
// add to, or change, what the measured root declares.
func TestContainersOfTwoSources(t *testing.T) {
	measured := Measured{Containers: []Container{{Name: "web", Image: "r/i:1", Args: []string{"a"}}}}
	same := "[[container]]\nname = 'web'\nimage = 'r/i:1'\nargs = ['a']\n"
	for _, tt := range []struct {
		name, text string
		from       Measured
		ok         bool
	}{
		{"initdata alone", same, Measured{}, true},
		{"repeated", same, measured, true},
		{"none", "", measured, true},
		{"another image", strings.Replace(same, ":1", ":2", 1), measured, false},
		{"another command", strings.Replace(same, "'a'", "'b'", 1), measured, false},
		{"one more", same + strings.Replace(same, "web", "evil", 1), measured, false},
		{"with a volume", same + "volumes = [{volume = 'x', path = '/d'}]\n", measured, false},
	} {
		got, err := tt.from.WithInitData(map[string]string{"casemate.toml": tt.text}, slog.New(slog.DiscardHandler))
		if tt.ok != (err == nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.ok && !reflect.DeepEqual(got.Containers, measured.Containers) {
			t.Errorf("%s: got %+v", tt.name, got.Containers)
		}
	}
}
