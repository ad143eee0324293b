// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// MaxContainers caps the containers that one guest declares.
const MaxContainers = 64

// When a container that has ended is started again.
const (
	RestartNo        = "no"
	RestartOnFailure = "on-failure"
	RestartAlways    = "always"
)

// sealedPrefix begins every sealed secret.
const sealedPrefix = "sealed."

// Container is one that casemate serve starts with the machine.
type Container struct {
	// Name is unique in the guest: at most 63 of a-z, 0-9 and ._-.
	Name string `toml:"name"`
	// Image is a reference; image policy decides whether it is admitted.
	Image string `toml:"image"`
	// Args, when set, replace the image's Cmd and follow its Entrypoint.
	Args []string `toml:"args"`
	// Env are NAME=VALUE; they win over the image's.
	Env []string `toml:"env"`
	// SealedEnv are NAME=SEALED, unsealed anew at each start.
	SealedEnv []string `toml:"sealed_env"`
	// Volumes are mounted into the container.
	Volumes []Mount `toml:"volumes"`
	// Restart is "no" (default), "on-failure" or "always".
	Restart string `toml:"restart"`
	// User is [USER|UID][:GROUP|GID], looked up in the image; empty is the image's.
	User string `toml:"user"`
}

// Mount puts a configured volume into a container.
type Mount struct {
	// Volume is the name of a [volume.NAME] that names its device.
	Volume string `toml:"volume"`
	// Path is absolute, in the container.
	Path     string `toml:"path"`
	ReadOnly bool   `toml:"read_only"`
}

// containerName can stand in a path and in an id of package container.
var containerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func checkContainers(list []Container) error {
	if len(list) > MaxContainers {
		return fmt.Errorf("container: want at most %d, got %d", MaxContainers, len(list))
	}
	names := map[string]bool{}
	for _, c := range list {
		if !containerName.MatchString(c.Name) {
			return fmt.Errorf("container %q: want a name of at most 63 of a-z, 0-9 and ._-", c.Name)
		}
		if names[c.Name] {
			return fmt.Errorf("container %q: the name is used twice", c.Name)
		}
		names[c.Name] = true
		if err := c.check(); err != nil {
			return fmt.Errorf("container %q: %w", c.Name, err)
		}
	}
	return nil
}

func (c Container) check() error {
	if c.Image == "" {
		return errors.New("image: want a reference")
	}
	if !slices.Contains([]string{"", RestartNo, RestartOnFailure, RestartAlways}, c.Restart) {
		return fmt.Errorf("restart %q: want %s, %s or %s", c.Restart, RestartNo, RestartOnFailure, RestartAlways)
	}
	names := map[string]bool{}
	for i, entry := range slices.Concat(c.Env, c.SealedEnv) {
		name, value, ok := strings.Cut(entry, "=")
		sealed := strings.HasPrefix(value, sealedPrefix)
		// A value may be a secret, so none is printed.
		switch {
		case !ok || name == "":
			return errors.New("env and sealed_env: want entries of the form NAME=VALUE")
		case names[name]:
			return fmt.Errorf("env and sealed_env: %s is set twice", name)
		case i < len(c.Env) && sealed:
			return fmt.Errorf("env: %s is sealed: it belongs into sealed_env", name)
		case i >= len(c.Env) && !sealed:
			return fmt.Errorf("sealed_env: %s is not sealed", name)
		}
		names[name] = true
	}
	paths := map[string]bool{}
	for _, v := range c.Volumes {
		if !path.IsAbs(v.Path) || path.Clean(v.Path) != v.Path || v.Path == "/" {
			return fmt.Errorf("volumes: path %q, want a clean absolute one below /", v.Path)
		}
		if paths[v.Path] {
			return fmt.Errorf("volumes: path %q is used twice", v.Path)
		}
		paths[v.Path] = true
	}
	return nil
}

// CheckContainerVolumes wants every volume of a container to be configured and to name its device.
// It is asked when configuration is complete: either source may name the volume.
func (m Measured) CheckContainerVolumes() error {
	for _, c := range m.Containers {
		for _, v := range c.Volumes {
			if volume, ok := m.Volumes[v.Volume]; !ok || volume.Device == "" {
				return fmt.Errorf("container %q: volume %q: want a [volume.NAME] with a device", c.Name, v.Volume)
			}
		}
	}
	return nil
}

// equalContainers compares what two sources declare.
func equalContainers(a, b []Container) bool {
	return slices.EqualFunc(a, b, func(a, b Container) bool {
		return a.Name == b.Name && a.Image == b.Image && a.Restart == b.Restart && a.User == b.User && slices.Equal(a.Args, b.Args) &&
			(a.Args == nil) == (b.Args == nil) && slices.Equal(a.Env, b.Env) && slices.Equal(a.SealedEnv, b.SealedEnv) && slices.Equal(a.Volumes, b.Volumes)
	})
}
