// SPDX-License-Identifier: Apache-2.0

package replay

// PodFile is the pod of the corpus: an init container, one that serves, and what Kubernetes gives both.
const PodFile = `
apiVersion: v1
kind: Pod
metadata: {name: shop, namespace: default}
spec:
  enableServiceLinks: false
  volumes:
  - {name: scratch, emptyDir: {medium: Memory}}
  - {name: settings, configMap: {name: s}}
  initContainers:
  - name: prepare
    image: busybox
    command: [sh, -c, "echo ready > /data/state"]
    volumeMounts: [{name: scratch, mountPath: /data}]
  containers:
  - name: app
    image: registry.example/app:1
    env:
    - {name: MODE, value: pod}
    - {name: WHERE, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    volumeMounts:
    - {name: scratch, mountPath: /data}
    - {name: settings, mountPath: /etc/app, readOnly: true}
    - {name: settings, mountPath: /srv/app.conf, subPath: app.conf}
    livenessProbe: {exec: {command: [/app, --check]}}
    lifecycle: {preStop: {exec: {command: [/app, --stop]}}}
    securityContext: {allowPrivilegeEscalation: false}
  - name: plain
    image: registry.example/plain:1
`

// Image is what an image's config says.
type Image struct {
	Reference       string // as the engine completes it
	Entrypoint, Cmd []string
	Env             []string
	WorkingDir      string
	UID, GID        uint32
}

// Images are the pod's, by the reference that the pod file has.
func Images() map[string]Image {
	return map[string]Image{
		"busybox": {Reference: "docker.io/library/busybox:latest", Cmd: []string{"sh"}},
		"registry.example/app:1": {
			Reference: "registry.example/app:1", Entrypoint: []string{"/app"}, Cmd: []string{"--serve"}, WorkingDir: "/srv",
			Env: []string{"PATH=/usr/bin:/bin", "MODE=image"}, UID: 1000, GID: 1000,
		},
		"registry.example/plain:1": {
			Reference: "registry.example/plain:1", Entrypoint: []string{"/plain"}, Env: []string{"PATH=/bin"}, UID: 33, GID: 33,
		},
	}
}

// container is one of the pod's as an engine sets it up.
type container struct {
	name      string
	reference string
	args      []string
	env       []string
	cwd       string
	uid, gid  uint32
	scratch   bool
	settings  bool
	noNew     bool
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// containers are the pod's, in the order in which they start. Only the last asks for nothing beyond its image's
// config, which is what the built-in policy admits.
func containers() []container {
	return []container{
		{
			name: "prepare", reference: "docker.io/library/busybox:latest", args: []string{"sh", "-c", "echo ready > /data/state"},
			env: []string{defaultPath}, cwd: "/", scratch: true,
		},
		{
			name: "app", reference: "registry.example/app:1", args: []string{"/app", "--serve"}, cwd: "/srv", uid: 1000, gid: 1000,
			env: []string{"PATH=/usr/bin:/bin", "MODE=pod", "WHERE=10.244.0.5"}, scratch: true, settings: true, noNew: true,
		},
		{name: "plain", reference: "registry.example/plain:1", args: []string{"/plain"}, cwd: "/", uid: 33, gid: 33, env: []string{"PATH=/bin"}},
	}
}
