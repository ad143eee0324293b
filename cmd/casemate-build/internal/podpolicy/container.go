// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ImageConfig is what an image's own config says about running it.
type ImageConfig struct {
	Digest          string // of the platform's manifest
	Entrypoint, Cmd []string
	Env             []string
	WorkingDir      string
	User            string
}

// ParseConfig reads an image's config (OCI image-spec, config.md), whose bytes the
// caller has compared with its digest. digest is that of the manifest.
func ParseConfig(digest string, text []byte) (*ImageConfig, error) {
	var c struct {
		Config struct {
			Entrypoint, Cmd, Env []string
			WorkingDir, User     string
		} `json:"config"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("reading image config: %w", err)
	}
	return &ImageConfig{
		Digest: digest, Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Env: c.Config.Env,
		WorkingDir: c.Config.WorkingDir, User: c.Config.User,
	}, nil
}

// container is one container as the rules see it. The names are those of the
// policy's data.
type container struct {
	Name     string     `json:"name"`
	Pod      int        `json:"pod"`    // its number in the file
	Key      string     `json:"key"`    // of that pod's container alone
	Images   []string   `json:"images"` // the reference in the spellings that runtimes use
	Args     []string   `json:"args"`
	Env      []string   `json:"env"`          // exact entries
	EnvLike  []string   `json:"env_patterns"` // regular expressions for whole entries
	Cwd      string     `json:"cwd"`
	User     string     `json:"user"` // by its name in the image, with Group; "" where it has a number
	Group    string     `json:"group"`
	UID      int64      `json:"uid"`
	GID      *int64     `json:"gid"`    // null: any
	Groups   []int64    `json:"groups"` // that the process may have besides
	Caps     []string   `json:"capabilities"`
	NoNew    bool       `json:"no_new_privileges"` // required
	Readonly bool       `json:"readonly_root"`     // required
	Terminal bool       `json:"terminal"`
	Stdin    bool       `json:"stdin"`
	Mounts   []mount    `json:"mounts"`
	Exec     [][]string `json:"exec"`
	Devices  []string   `json:"devices"` // paths that mean volumes of measured configuration
}

// kubernetesVariables are what every container is told of the API server and of
// itself.
var kubernetesVariables = []string{
	`^HOSTNAME=[a-zA-Z0-9.-]+$`,
	`^KUBERNETES_(SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_HTTPS|PORT|PORT_[0-9]+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)=[a-zA-Z0-9.:/\[\]-]*$`,
}

// serviceLinks are the variables of the namespace's services (docker links' form).
const serviceLinks = `^[A-Z][A-Z0-9_]*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)=[a-zA-Z0-9.:/\[\]-]*$`

// build joins a container of a pod with its image's config. notes say what the
// policy leaves open.
func (p *pod) build(c *containerSpec, img *ImageConfig) (out container, notes []string, err error) {
	out = container{Name: c.Name, Images: spellings(c.Image), Terminal: c.TTY, Stdin: c.Stdin, Cwd: path.Clean("/" + img.WorkingDir), Exec: [][]string{}, Devices: []string{}}
	note := func(format string, args ...any) { notes = append(notes, c.Name+": "+fmt.Sprintf(format, args...)) }
	if c.WorkingDir != "" {
		out.Cwd = c.WorkingDir
	}
	values, err := out.environment(p, c, img, note)
	if err != nil {
		return out, nil, err
	}
	if out.Args, err = command(c, img, values); err != nil {
		return out, nil, err
	}
	if err := out.identity(p, c, img, note); err != nil {
		return out, nil, err
	}
	if out.Caps, err = capabilities(c.SecurityContext); err != nil {
		return out, nil, err
	}
	if sc := c.SecurityContext; sc != nil {
		out.NoNew = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
		out.Readonly = sc.ReadOnlyRootFilesystem
	}
	if out.Mounts, err = p.mounts(c); err != nil {
		return out, nil, err
	}
	if err := out.devices(p, c, note); err != nil {
		return out, nil, err
	}
	for _, h := range []*handler{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe, c.Lifecycle.postStart(), c.Lifecycle.preStop()} {
		if h != nil && h.Exec != nil && len(h.Exec.Command) > 0 {
			out.Exec = append(out.Exec, h.Exec.Command)
		}
	}
	if !strings.Contains(c.Image, "@sha256:") {
		note("image %s is %s today: let policy.json admit it by digest or signature, the tag alone proves nothing", c.Image, img.Digest)
	}
	return out, notes, nil
}

// devices are the disks that the container may be given, each in the place of a volume.
func (out *container) devices(p *pod, c *containerSpec, note func(string, ...any)) error {
	for _, d := range c.VolumeDevices {
		switch {
		case !slices.ContainsFunc(p.Volumes, func(v volumeSpec) bool { return v.Name == d.Name }):
			return fmt.Errorf("container %s: volumeDevices: there is no volume %s", c.Name, d.Name)
		case !path.IsAbs(d.DevicePath) || path.Clean(d.DevicePath) != d.DevicePath || slices.Contains(out.Devices, d.DevicePath):
			return fmt.Errorf("container %s: volumeDevices: %q: want a clean absolute path, once", c.Name, d.DevicePath)
		}
		out.Devices = append(out.Devices, d.DevicePath)
		note("%s becomes the volume whose [volume.NAME] in casemate.toml has device = %q: without one the agent refuses it", d.Name, d.DevicePath)
	}
	return nil
}

func (l *lifecycle) postStart() *handler {
	if l == nil {
		return nil
	}
	return l.PostStart
}

func (l *lifecycle) preStop() *handler {
	if l == nil {
		return nil
	}
	return l.PreStop
}

// spellings are a reference as written and as containerd completes it.
func spellings(reference string) []string {
	full := reference
	first, rest, ok := strings.Cut(reference, "/")
	switch {
	case !ok:
		full = "docker.io/library/" + reference
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		full = "docker.io/" + first + "/" + rest
	}
	if last := full[strings.LastIndexByte(full, '/')+1:]; !strings.ContainsAny(last, ":@") {
		full += ":latest"
	}
	if full == reference {
		return []string{reference}
	}
	return []string{reference, full}
}

// fieldPatterns are the forms of what a fieldRef names.
var fieldPatterns = map[string]string{
	"metadata.name": `[a-z0-9.-]+`, "metadata.namespace": `[a-z0-9-]+`, "metadata.uid": `[a-f0-9-]+`,
	"spec.nodeName": `[a-z0-9.-]+`, "spec.serviceAccountName": `[a-z0-9.-]+`,
	"status.hostIP": `[0-9a-f.:]+`, "status.podIP": `[0-9a-f.:]+`, "status.podIPs": `[0-9a-f.:,]+`, "status.hostIPs": `[0-9a-f.:,]+`,
}

// environment fills Env and EnvLike and returns the values that are known, for
// $(NAME) in command lines.
func (out *container) environment(p *pod, c *containerSpec, img *ImageConfig, note func(string, ...any)) (map[string]string, error) {
	values, set := map[string]string{}, map[string]bool{}
	out.Env, out.EnvLike = []string{}, slices.Clone(kubernetesVariables)
	if p.EnableServiceLinks == nil || *p.EnableServiceLinks {
		out.EnvLike = append(out.EnvLike, serviceLinks)
		note("the variables of the namespace's services are left open: enableServiceLinks: false closes them")
	}
	taken, err := p.maps.from(c)
	if err != nil {
		return nil, fmt.Errorf("container %s: envFrom: %w", c.Name, err)
	}
	for _, v := range taken {
		set[v.name] = true
		if v.known {
			values[v.name] = v.value
		}
		if slices.ContainsFunc(c.Env, func(e envVar) bool { return e.Name == v.name }) {
			continue // env has the last word
		}
		if v.known {
			out.Env = append(out.Env, v.name+"="+v.value)
			continue
		}
		note("the host chooses the value of %s: a sealed secret in its place would not", v.name)
		out.EnvLike = append(out.EnvLike, "^"+regexp.QuoteMeta(v.name)+`=(.|\n)*$`)
	}
	for _, e := range c.Env {
		set[e.Name] = true
		if e.ValueFrom == nil {
			values[e.Name] = expand(e.Value, values)
			out.Env = append(out.Env, e.Name+"="+values[e.Name])
			continue
		}
		if value, ok := p.maps.value(e.ValueFrom.ConfigMapKeyRef); ok {
			values[e.Name] = value
			out.Env = append(out.Env, e.Name+"="+value)
			continue
		}
		delete(values, e.Name) // what envFrom had for it counts no longer
		pattern := `(.|\n)*`
		switch from := e.ValueFrom; {
		case from.FieldRef != nil && fieldPatterns[from.FieldRef.FieldPath] != "":
			pattern = fieldPatterns[from.FieldRef.FieldPath]
		case from.ResourceFieldRef != nil:
			pattern = `[0-9]+`
		default:
			note("the host chooses the value of %s: a sealed secret in its place would not", e.Name)
		}
		out.EnvLike = append(out.EnvLike, "^"+regexp.QuoteMeta(e.Name)+"="+pattern+"$")
	}
	path := false
	for _, entry := range img.Env {
		name, _, _ := strings.Cut(entry, "=")
		path = path || name == "PATH"
		if !set[name] {
			out.Env = append(out.Env, entry)
		}
	}
	if !path && !set["PATH"] {
		out.Env = append(out.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	if c.TTY {
		out.Env = append(out.Env, "TERM=xterm")
	}
	return values, nil
}

// reference is Kubernetes' $(NAME); $$(NAME) stands for itself.
var reference = regexp.MustCompile(`\$?\$\([A-Za-z_][A-Za-z0-9_.-]*\)`)

func expand(text string, values map[string]string) string {
	return reference.ReplaceAllStringFunc(text, func(m string) string {
		if strings.HasPrefix(m, "$$") {
			return m[1:]
		}
		if v, ok := values[m[2:len(m)-1]]; ok {
			return v
		}
		return m
	})
}

// command is what runs: Kubernetes' command and args over the image's Entrypoint and
// Cmd.
func command(c *containerSpec, img *ImageConfig, values map[string]string) ([]string, error) {
	entrypoint, args := img.Entrypoint, img.Cmd
	if len(c.Command) > 0 {
		entrypoint, args = c.Command, nil
	}
	if len(c.Args) > 0 {
		args = c.Args
	}
	argv := []string{}
	for _, a := range slices.Concat(entrypoint, args) {
		argv = append(argv, expand(a, values))
	}
	if len(argv) == 0 {
		return nil, fmt.Errorf("container %s: neither the pod nor the image names a command", c.Name)
	}
	return argv, nil
}

// identity is the user: by number, or where the image has a name and the pod no number, by that name, which the agent
// looks up in the image. The host's translation of a name is not taken.
func (out *container) identity(p *pod, c *containerSpec, img *ImageConfig, note func(string, ...any)) error {
	var user, group *int64
	for _, sc := range []*securityContext{p.SecurityContext, c.SecurityContext} {
		if sc == nil {
			continue
		}
		if sc.RunAsUser != nil {
			user = sc.RunAsUser
		}
		if sc.RunAsGroup != nil {
			group = sc.RunAsGroup
		}
	}
	name, gid, _ := strings.Cut(img.User, ":")
	out.Groups = []int64{}
	if user == nil {
		uid := int64(0)
		if name != "" {
			var err error
			if uid, err = strconv.ParseInt(name, 10, 64); err != nil {
				return out.named(p, c, name, gid, group, note)
			}
		}
		user = &uid
	}
	if n, err := strconv.ParseInt(gid, 10, 64); group == nil && err == nil {
		group = &n
	}
	if group == nil && *user != 0 {
		note("the group of user %d is left open: securityContext.runAsGroup closes it", *user)
	} else if group == nil {
		group = new(int64)
	}
	out.UID, out.GID = *user, group
	if sc := p.SecurityContext; sc != nil {
		out.Groups = append(out.Groups, sc.SupplementalGroups...)
		if sc.FSGroup != nil {
			out.Groups = append(out.Groups, *sc.FSGroup)
		}
	}
	return nil
}

// named is a user that the image names.
func (out *container) named(p *pod, c *containerSpec, name, group string, number *int64, note func(string, ...any)) error {
	if number != nil {
		return fmt.Errorf("container %s: the image runs as %q: name its number in securityContext.runAsUser beside runAsGroup", c.Name, name)
	}
	if sc := p.SecurityContext; sc != nil && (sc.FSGroup != nil || len(sc.SupplementalGroups) > 0) {
		return fmt.Errorf("container %s: the image runs as %q: name its number in securityContext.runAsUser beside further groups", c.Name, name)
	}
	out.User, out.Group = name, group
	note("it runs as %q of the image: a runtime that sends a number instead of the name is refused, securityContext.runAsUser admits one", name)
	return nil
}

var defaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

func capabilities(sc *securityContext) ([]string, error) {
	set := slices.Clone(defaultCapabilities)
	if sc == nil || sc.Capabilities == nil {
		return set, nil
	}
	full := func(name string) string { return "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_") }
	for _, name := range sc.Capabilities.Drop {
		if strings.EqualFold(name, "all") {
			set = []string{}
		}
		set = slices.DeleteFunc(set, func(have string) bool { return have == full(name) })
	}
	for _, name := range sc.Capabilities.Add {
		if strings.EqualFold(name, "all") {
			return nil, fmt.Errorf("capabilities: add names ALL: name each that is needed")
		}
		if !slices.Contains(set, full(name)) {
			set = append(set, full(name))
		}
	}
	slices.Sort(set)
	return set, nil
}
