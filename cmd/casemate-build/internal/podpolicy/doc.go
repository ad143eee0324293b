// SPDX-License-Identifier: Apache-2.0

// Package podpolicy writes the agent policy of one Kubernetes pod from its YAML and
// the configs of its images: which command lines, environments, users, mounts and
// probes a guest may be asked for. Layers are not pulled: what an image is made of is
// proved in the guest, by its digest and signatures.
//
// The policy is rules that do not change (rules.rego) and the pod as data. What a pod
// file asks for and no confidential guest gives is an error that names the field:
// privileged containers, devices, directories and namespaces of the host. What the
// file leaves to the cluster, a value from a secret for instance, is bounded by its
// name only, and said in a note.
//
// Files: pod.go the YAML; container.go a container with its image; mounts.go
// its mounts; policy.go the
// text; rules.rego the rules.
package podpolicy
