// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strings"
)

// Runtime is the shim that talks to the agent.
type Runtime string

// Engine is what drives the shim.
type Engine string

// Runtimes and engines.
const (
	GoRuntime   Runtime = "runtime-go"
	RustRuntime Runtime = "runtime-rs"

	Containerd1 Engine = "containerd-1.7"
	Containerd2 Engine = "containerd-2"
	CRIO        Engine = "cri-o"
)

// Stack is one way in which requests come about.
type Stack struct {
	Runtime Runtime
	Engine  Engine
}

func (s Stack) String() string { return string(s.Runtime) + "/" + string(s.Engine) }

// Stacks are all six.
func Stacks() []Stack {
	var all []Stack
	for _, r := range []Runtime{GoRuntime, RustRuntime} {
		for _, e := range []Engine{Containerd1, Containerd2, CRIO} {
			all = append(all, Stack{r, e})
		}
	}
	return all
}

// ID is a container's id: 64 hexadecimal digits.
func (s Stack) ID(name string) string {
	sum := sha256.Sum256([]byte(s.String() + " " + name))
	return hex.EncodeToString(sum[:])
}

// SandboxID is the pod's and its pause container's.
func (s Stack) SandboxID() string { return s.ID("pause") }

// nonce is the random part of a copied file's name.
func (s Stack) nonce(what string) string { return s.ID("nonce " + what)[:16] }

// execID is what the shim calls a container's first process.
func (s Stack) execID(id string) string {
	if s.Runtime == RustRuntime {
		return ""
	}
	return id
}

const (
	podUID       = "8e0c7bd4-61a2-4b59-9d6b-3a3a1d2f4c11"
	podName      = "shop"
	podNamespace = "default"
)

// cgroups is the container's cgroup path: of systemd's driver but for the oldest engine.
func (s Stack) cgroups(id string) string {
	slice := "kubepods-burstable-pod" + strings.ReplaceAll(podUID, "-", "_") + ".slice:"
	switch s.Engine {
	case CRIO:
		return slice + "crio:" + id
	case Containerd2:
		return slice + "cri-containerd:" + id
	}
	return "/kubepods/burstable/pod" + podUID + "/" + id
}

// version is the OCI version that the engine writes.
func (s Stack) version() string {
	return map[Engine]string{Containerd1: "1.1.0", Containerd2: "1.2.1", CRIO: "1.2.0"}[s.Engine]
}

// annotations of a container; image is "" for the pause container.
func (s Stack) annotations(id, name, image string) map[string]string {
	kind, oci := "container", "pod_container"
	if image == "" {
		kind, oci = "sandbox", "pod_sandbox"
	}
	out := map[string]string{
		"io.katacontainers.pkg.oci.bundle_path":    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id,
		"io.katacontainers.pkg.oci.container_type": oci,
	}
	if s.Engine == CRIO {
		maps.Copy(out, s.crio(id, kind, name, image))
		return out
	}
	maps.Copy(out, map[string]string{
		"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": s.SandboxID(),
		"io.kubernetes.cri.sandbox-name": podName, "io.kubernetes.cri.sandbox-namespace": podNamespace, "io.kubernetes.cri.sandbox-uid": podUID,
	})
	if image != "" {
		out["io.kubernetes.cri.container-name"], out["io.kubernetes.cri.image-name"] = name, image
		return out
	}
	maps.Copy(out, map[string]string{
		"io.kubernetes.cri.sandbox-log-directory": "/var/log/pods/" + podNamespace + "_" + podName + "_" + podUID,
		"io.kubernetes.cri.sandbox-cpu-period":    "100000", "io.kubernetes.cri.sandbox-cpu-quota": "0",
		"io.kubernetes.cri.sandbox-cpu-shares": "2", "io.kubernetes.cri.sandbox-memory": "0",
	})
	if s.Engine == Containerd2 {
		out["io.kubernetes.cri.podsandbox.image-name"] = "registry.k8s.io/pause:3.10"
	}
	return out
}

func (s Stack) crio(id, kind, name, image string) map[string]string {
	return map[string]string{
		"io.kubernetes.cri-o.ContainerType": kind, "io.kubernetes.cri-o.SandboxID": s.SandboxID(), "io.kubernetes.cri-o.ContainerID": id,
		"io.kubernetes.cri-o.SandboxName": "k8s_POD_" + podName, "io.kubernetes.cri-o.Namespace": podNamespace, "io.kubernetes.cri-o.ContainerName": "k8s_" + name,
		"io.kubernetes.cri-o.ImageName": image, "io.kubernetes.cri-o.TTY": "false", "io.kubernetes.cri-o.Stdin": "false", "io.kubernetes.cri-o.StdinOnce": "false",
		"io.kubernetes.cri-o.Metadata": `{"name":"` + name + `"}`, "io.kubernetes.cri-o.LogPath": "/var/log/pods/" + podUID + "/" + name + "/0.log",
		"io.kubernetes.cri-o.MountPoint": "/var/lib/containers/storage/overlay/" + s.ID("mount"+name) + "/merged", "io.container.manager": "cri-o",
		"io.kubernetes.container.name": name, "io.kubernetes.container.terminationMessagePath": "/dev/termination-log",
		"io.kubernetes.container.terminationMessagePolicy": "File", "io.kubernetes.pod.name": podName, "io.kubernetes.pod.namespace": podNamespace,
		"io.kubernetes.pod.uid": podUID, "kubernetes.io/config.source": "api",
	}
}
