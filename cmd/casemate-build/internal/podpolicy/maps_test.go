// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const mapsFile = `
kind: Pod
metadata: {name: p}
spec:
  containers:
  - name: c
    image: busybox
    command: [run, $(COLOUR), $(APP_MODE), $(TOKEN), $(OWN)]
    envFrom:
    - configMapRef: {name: first}
    - {prefix: APP_, configMapRef: {name: second}}
    - secretRef: {name: keys}
    env:
    - {name: OWN, value: mine}
    - {name: SIZE, valueFrom: {configMapKeyRef: {name: first, key: size-of-it}}}
    - {name: TAKEN, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
---
kind: ConfigMap
metadata: {name: second}
data: {MODE: fast, COLOUR: green}
---
kind: ConfigMap
metadata: {name: first}
data: {COLOUR: red, OWN: other, TAKEN: other}
---
kind: Secret
metadata: {name: keys}
data: {TOKEN: Y2FuYXJ5LTcxZTA=}
stringData: {PASSWORD: canary-71e0}
`

// TestMapsInTheFile: values of ConfigMaps that stand beside the pod are pinned, of Secrets only the variables' names.
func TestMapsInTheFile(t *testing.T) {
	text := strings.Replace(mapsFile, "data: {COLOUR: red,", "data: {COLOUR: red, size_of_it: x,", 1)
	text = strings.ReplaceAll(text, "size-of-it", "size_of_it")
	pods, err := parsePods([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, notes, err := pods[0].build(&pods[0].Containers[0], images["busybox"])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"COLOUR=red", "APP_MODE=fast", "APP_COLOUR=green", "OWN=mine", "SIZE=x"} {
		if !slices.Contains(c.Env, want) {
			t.Errorf("no %s in %q", want, c.Env)
		}
	}
	for _, not := range []string{"OWN=other", "TAKEN=other"} {
		if slices.Contains(c.Env, not) {
			t.Errorf("%s in %q", not, c.Env)
		}
	}
	for _, want := range []string{`^TOKEN=(.|\n)*$`, `^PASSWORD=(.|\n)*$`, `^TAKEN=[0-9a-f.:]+$`} {
		if !slices.Contains(c.EnvLike, want) {
			t.Errorf("no %s in %q", want, c.EnvLike)
		}
	}
	if want := []string{"run", "red", "fast", "$(TOKEN)", "mine"}; !slices.Equal(c.Args, want) {
		t.Errorf("got %q, want %q", c.Args, want)
	}
	if !strings.Contains(strings.Join(notes, "\n"), "the host chooses the value of PASSWORD") {
		t.Errorf("got %q", notes)
	}
	p := generate(t, text, Options{})
	load(t, p)
	if bytes.Contains(p.Rego, []byte("canary-71e0")) || bytes.Contains(p.Rego, []byte("Y2FuYXJ5LTcxZTA=")) {
		t.Error("a Secret's value stands in the policy, which the host reads")
	}
}
