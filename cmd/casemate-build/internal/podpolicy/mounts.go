// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mount is a bind mount: what it is called in the container, and a regular
// expression for where in the guest it comes from.
type mount struct {
	Destination string `json:"destination"`
	Source      string `json:"source"`
	Readonly    bool   `json:"readonly"`
	Volume      string `json:"volume"` // of the pod's emptyDirs; "" for anything else
}

// Where a pod's files are in the guest (kata 4.1). The id is the container's.
const (
	copied    = `^/run/kata-containers/shared/containers/(passthrough/)?(watchable/)?[A-Za-z0-9][A-Za-z0-9_.-]*-[a-f0-9]{16}-`
	ephemeral = `^/run/kata-containers/sandbox/(ephemeral|storage)/[A-Za-z0-9_=.-]+$`
	localDir  = `^/run/kata-containers/shared/containers/[A-Za-z0-9_.-]+/rootfs/local/[A-Za-z0-9_.-]+$`

	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"
	terminationLog = "/dev/termination-log"
)

// mounts are the container's own volumes and what Kubernetes gives every container.
func (p *pod) mounts(c *containerSpec) ([]mount, error) {
	termination := c.TerminationMessagePath
	if termination == "" {
		termination = terminationLog
	}
	list := []mount{
		{Destination: "/etc/hosts", Source: copied + "hosts$"},
		{Destination: "/etc/hostname", Source: copied + "hostname$"},
		{Destination: "/etc/resolv.conf", Source: copied + "resolv.conf$"},
		{Destination: termination, Source: copied + regexp.QuoteMeta(path.Base(termination)) + "$"},
	}
	if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
		list = append(list, mount{Destination: serviceAccount, Source: copied + "serviceaccount$", Readonly: true})
	}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(p.Volumes, func(v volumeSpec) bool { return v.Name == m.Name })
		if i < 0 {
			return nil, fmt.Errorf("container %s: volumeMounts: there is no volume %s", c.Name, m.Name)
		}
		source, err := p.Volumes[i].source(m.MountPath)
		if err == nil {
			err = p.Volumes[i].part(&m)
		}
		if err != nil {
			return nil, fmt.Errorf("container %s: volume %s: %w", c.Name, m.Name, err)
		}
		// Kubelet mounts what is copied read-only, asked or not.
		own := mount{Destination: m.MountPath, Source: source, Readonly: m.ReadOnly || m.SubPath != ""}
		if p.Volumes[i].EmptyDir != nil {
			own.Volume = m.Name
		}
		list = append(list, own)
	}
	return list, nil
}

func (v *volumeSpec) source(destination string) (string, error) {
	switch {
	case v.EmptyDir != nil && v.EmptyDir.Medium == "Memory":
		return ephemeral, nil
	case v.EmptyDir != nil && v.EmptyDir.Medium == "":
		return "(" + ephemeral + ")|(" + localDir + ")", nil
	case v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil, v.Projected != nil:
		return copied + regexp.QuoteMeta(path.Base(destination)) + "$", nil
	}
	return "", fmt.Errorf("want emptyDir, configMap, secret, downwardAPI or projected: no directory of the host is passed on")
}

// part refuses a subPath that the guest cannot give as Kubernetes means it. Of a copied volume the runtime copies what
// the path names, a file or a directory, in place of the whole (kata 4.1: kubelet's bind mount of it below
// volume-subpaths, copied under the name of the place where it is mounted), so that the guest sees one more copied
// tree and never the path itself. Of an emptyDir it copies as well, and there a copy is wrong.
func (v *volumeSpec) part(m *volumeMount) error {
	switch {
	case m.SubPathExpr != "":
		return fmt.Errorf("subPathExpr %q: the host alone knows what it becomes: name the path in subPath", m.SubPathExpr)
	case m.SubPath == "":
		return nil
	case v.EmptyDir != nil:
		return fmt.Errorf("subPath %q of an emptyDir: the runtime copies it for each container, which see nothing of one another then and lose what they wrote when they start again: mount it whole", m.SubPath)
	case path.Clean(m.SubPath) != m.SubPath || m.SubPath == "." || !filepath.IsLocal(m.SubPath) || strings.ContainsRune(m.SubPath, 0):
		return fmt.Errorf("subPath %q: want a clean relative path that goes down only", m.SubPath)
	case !path.IsAbs(m.MountPath) || path.Clean(m.MountPath) != m.MountPath || m.MountPath == "/" || strings.ContainsRune(m.MountPath, 0):
		return fmt.Errorf("mountPath %q beside a subPath: want a clean absolute path below /", m.MountPath)
	}
	return nil
}
