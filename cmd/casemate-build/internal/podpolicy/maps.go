// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// keyRef names one value of a ConfigMap or Secret.
type keyRef struct {
	Name string `yaml:"name"`
	Key  string `yaml:"key"`
}

// envSource is all values of a ConfigMap or Secret.
type envSource struct {
	Prefix       string  `yaml:"prefix"`
	ConfigMapRef *keyRef `yaml:"configMapRef"`
	SecretRef    *keyRef `yaml:"secretRef"`
}

// maps are the ConfigMaps and Secrets in the file, by kind and name. Of a Secret the names of its values alone are
// kept: a policy stands in initdata, which the host reads.
type maps map[[2]string]map[string]string

const (
	configMap = "ConfigMap"
	secret    = "Secret"
)

// add takes an object over where it is a map.
func (m maps) add(o *object) error {
	if o.Kind != configMap && o.Kind != secret {
		return nil
	}
	key := [2]string{o.Kind, o.Metadata.Name}
	if m[key] != nil {
		return errors.New("it stands in the file twice")
	}
	m[key] = map[string]string{}
	for _, node := range []yaml.Node{o.Data, o.StringData} {
		var values map[string]string
		if node.IsZero() {
			continue
		}
		if err := node.Decode(&values); err != nil {
			return fmt.Errorf("data: %w", err)
		}
		for name, value := range values {
			if o.Kind == secret {
				value = ""
			}
			m[key][name] = value
		}
	}
	return nil
}

// value is one of a ConfigMap in the file.
func (m maps) value(ref *keyRef) (string, bool) {
	if ref == nil {
		return "", false
	}
	v, ok := m[[2]string{configMap, ref.Name}][ref.Key]
	return v, ok
}

// variable is one that envFrom sets; the value of a Secret's is not known.
type variable struct {
	name, value string
	known       bool
}

// variableName is what becomes a variable (Kubernetes leaves other keys out, or makes variables of them, by its version).
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// from are the variables of a container's envFrom, sorted; of two with one name the later counts.
func (m maps) from(c *containerSpec) ([]variable, error) {
	byName := map[string]variable{}
	for _, source := range c.EnvFrom {
		kind, ref := configMap, source.ConfigMapRef
		if ref == nil {
			kind, ref = secret, source.SecretRef
		}
		if ref == nil {
			return nil, errors.New("want configMapRef or secretRef")
		}
		values := m[[2]string{kind, ref.Name}]
		if values == nil {
			return nil, fmt.Errorf("%s %s is not in the file: the policy has to know its variables", kind, ref.Name)
		}
		for key, value := range values {
			name := source.Prefix + key
			if !variableName.MatchString(name) {
				return nil, fmt.Errorf("%s %s: %q is no name of a variable", kind, ref.Name, name)
			}
			byName[name] = variable{name, value, kind == configMap}
		}
	}
	var list []variable
	for _, v := range byName {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b variable) int { return strings.Compare(a.name, b.name) })
	return list, nil
}
