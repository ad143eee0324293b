// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// maxDocuments caps the documents of one file.
const maxDocuments = 64

// object is a Kubernetes object as far as it says what containers run.
type object struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec       yaml.Node `yaml:"spec"`
	Data       yaml.Node `yaml:"data"`
	StringData yaml.Node `yaml:"stringData"`
}

// podSpec is a pod's spec (Kubernetes API, core/v1) as far as the guest sees it.
type podSpec struct {
	Containers                   []containerSpec  `yaml:"containers"`
	InitContainers               []containerSpec  `yaml:"initContainers"`
	Volumes                      []volumeSpec     `yaml:"volumes"`
	SecurityContext              *securityContext `yaml:"securityContext"`
	HostNetwork                  bool             `yaml:"hostNetwork"`
	HostPID                      bool             `yaml:"hostPID"`
	HostIPC                      bool             `yaml:"hostIPC"`
	ShareProcessNamespace        bool             `yaml:"shareProcessNamespace"`
	AutomountServiceAccountToken *bool            `yaml:"automountServiceAccountToken"`
	EnableServiceLinks           *bool            `yaml:"enableServiceLinks"`
}

type containerSpec struct {
	Name                   string           `yaml:"name"`
	Image                  string           `yaml:"image"`
	Command                []string         `yaml:"command"`
	Args                   []string         `yaml:"args"`
	WorkingDir             string           `yaml:"workingDir"`
	Env                    []envVar         `yaml:"env"`
	EnvFrom                []envSource      `yaml:"envFrom"`
	VolumeMounts           []volumeMount    `yaml:"volumeMounts"`
	VolumeDevices          []volumeDevice   `yaml:"volumeDevices"`
	SecurityContext        *securityContext `yaml:"securityContext"`
	LivenessProbe          *handler         `yaml:"livenessProbe"`
	ReadinessProbe         *handler         `yaml:"readinessProbe"`
	StartupProbe           *handler         `yaml:"startupProbe"`
	Lifecycle              *lifecycle       `yaml:"lifecycle"`
	TerminationMessagePath string           `yaml:"terminationMessagePath"`
	Stdin                  bool             `yaml:"stdin"`
	TTY                    bool             `yaml:"tty"`
}

type envVar struct {
	Name      string `yaml:"name"`
	Value     string `yaml:"value"`
	ValueFrom *struct {
		FieldRef *struct {
			FieldPath string `yaml:"fieldPath"`
		} `yaml:"fieldRef"`
		ResourceFieldRef *yaml.Node `yaml:"resourceFieldRef"`
		ConfigMapKeyRef  *keyRef    `yaml:"configMapKeyRef"`
		SecretKeyRef     *keyRef    `yaml:"secretKeyRef"`
	} `yaml:"valueFrom"`
}

type volumeDevice struct {
	Name       string `yaml:"name"`
	DevicePath string `yaml:"devicePath"`
}

type volumeMount struct {
	Name        string `yaml:"name"`
	MountPath   string `yaml:"mountPath"`
	SubPath     string `yaml:"subPath"`
	SubPathExpr string `yaml:"subPathExpr"`
	ReadOnly    bool   `yaml:"readOnly"`
}

// volumeSpec has one of many members; those that are served are here.
type volumeSpec struct {
	Name     string `yaml:"name"`
	EmptyDir *struct {
		Medium string `yaml:"medium"`
	} `yaml:"emptyDir"`
	ConfigMap   *yaml.Node `yaml:"configMap"`
	Secret      *yaml.Node `yaml:"secret"`
	DownwardAPI *yaml.Node `yaml:"downwardAPI"`
	Projected   *yaml.Node `yaml:"projected"`
}

type securityContext struct {
	Privileged               bool    `yaml:"privileged"`
	AllowPrivilegeEscalation *bool   `yaml:"allowPrivilegeEscalation"`
	ReadOnlyRootFilesystem   bool    `yaml:"readOnlyRootFilesystem"`
	RunAsUser                *int64  `yaml:"runAsUser"`
	RunAsGroup               *int64  `yaml:"runAsGroup"`
	FSGroup                  *int64  `yaml:"fsGroup"`            // a pod's alone
	SupplementalGroups       []int64 `yaml:"supplementalGroups"` // a pod's alone
	Capabilities             *struct {
		Add  []string `yaml:"add"`
		Drop []string `yaml:"drop"`
	} `yaml:"capabilities"`
	Sysctls []yaml.Node `yaml:"sysctls"`
}

type handler struct {
	Exec *struct {
		Command []string `yaml:"command"`
	} `yaml:"exec"`
}

type lifecycle struct {
	PostStart *handler `yaml:"postStart"`
	PreStop   *handler `yaml:"preStop"`
}

// pod is a pod's spec with the name of the object it stands in, and the maps that stand beside it in the file.
type pod struct {
	name string
	podSpec
	maps maps
}

// parsePods finds the pods in a YAML file: those of kind Pod and those in the objects
// that make pods. Other objects say nothing about containers and are passed over.
func parsePods(text []byte) ([]pod, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var pods []pod
	beside := maps{}
	for n := 0; ; n++ {
		var o object
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading document %d: %w", n+1, err)
		}
		if n == maxDocuments {
			return nil, fmt.Errorf("more than %d documents", maxDocuments)
		}
		if err := beside.add(&o); err != nil {
			return nil, fmt.Errorf("reading %s %s: %w", o.Kind, o.Metadata.Name, err)
		}
		p, ok, err := podOf(&o)
		if err != nil {
			return nil, fmt.Errorf("reading %s %s: %w", o.Kind, o.Metadata.Name, err)
		}
		if ok {
			pods = append(pods, p)
		}
	}
	for i := range pods {
		pods[i].maps = beside
	}
	if len(pods) == 0 {
		return nil, errors.New("no Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job or CronJob in the file")
	}
	return pods, nil
}

// podOwner is the spec of an object that makes pods.
type podOwner struct {
	Template struct {
		Spec podSpec `yaml:"spec"`
	} `yaml:"template"`
}

func podOf(o *object) (p pod, ok bool, err error) {
	p.name = o.Metadata.Name
	switch o.Kind {
	case "Pod":
		err = o.Spec.Decode(&p.podSpec)
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job":
		var owner podOwner
		err = o.Spec.Decode(&owner)
		p.podSpec = owner.Template.Spec
	case "CronJob":
		var owner struct {
			JobTemplate struct {
				Spec podOwner `yaml:"spec"`
			} `yaml:"jobTemplate"`
		}
		err = o.Spec.Decode(&owner)
		p.podSpec = owner.JobTemplate.Spec.Template.Spec
	default:
		return p, false, nil
	}
	if err == nil {
		err = p.check()
	}
	return p, true, err
}

// check refuses what needs the host.
func (p *pod) check() error {
	for field, set := range map[string]bool{
		"hostNetwork": p.HostNetwork, "hostPID": p.HostPID, "hostIPC": p.HostIPC, "shareProcessNamespace": p.ShareProcessNamespace,
		"securityContext.sysctls": p.SecurityContext != nil && len(p.SecurityContext.Sysctls) > 0,
	} {
		if set {
			return fmt.Errorf("%s is not for a confidential guest", field)
		}
	}
	if len(p.Containers) == 0 {
		return errors.New("no containers")
	}
	for _, c := range append(append([]containerSpec{}, p.InitContainers...), p.Containers...) {
		switch {
		case c.Name == "" || c.Image == "":
			return fmt.Errorf("container %q: want a name and an image", c.Name)
		case c.SecurityContext != nil && c.SecurityContext.Privileged:
			return fmt.Errorf("container %s: securityContext.privileged is not for a confidential guest", c.Name)
		}
	}
	return nil
}
