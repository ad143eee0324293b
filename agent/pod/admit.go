// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
)

// serviceVariable is what Kubernetes adds to every container's environment to tell
// it of the API server, and the name of the pod: the closed list of variables that
// an image need not have named.
var serviceVariable = regexp.MustCompile(`^(HOSTNAME=[A-Za-z0-9.-]+|KUBERNETES_(SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_HTTPS|PORT|PORT_[0-9]{1,5}_(TCP|UDP)(_(PROTO|PORT|ADDR))?)=[A-Za-z0-9.:/\[\]-]+)$`)

// Difference is what a request asks for and an image's config does not.
type Difference struct {
	What  string // in words, for the host
	Field string // in the request
	// Given and Wanted are the values, for the tenant alone; Wanted has one line for each that would have done.
	Given  string
	Wanted []string
}

// Refusal is the error that the host reads: it has no value of the image's.
func (d *Difference) Refusal() error {
	return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: %s is not what the image says, and no policy of the tenant names it", d.What)
}

// AsImageSays admits a process that does what the verified image's own config says,
// and nothing else that the host could have written: the same arguments, working
// directory and user, and of the environment the image's and serviceVariable's. It
// is for a guest whose tenant brought no policy (docs/security.md 15).
func AsImageSays(image, requested *specs.Process) error {
	if d := Differs(image, requested); d != nil {
		return d.Refusal()
	}
	return nil
}

// Differs is the first difference that AsImageSays refuses, nil for none.
func Differs(image, requested *specs.Process) *Difference {
	differ := func(what, field string, given any, wanted ...any) *Difference {
		d := &Difference{What: what, Field: "OCI.Process." + field, Given: fmt.Sprintf("%q", given)}
		for _, w := range wanted {
			d.Wanted = append(d.Wanted, fmt.Sprintf("%q", w))
		}
		return d
	}
	const variable = "a variable of the environment"
	have, want := requested.User, image.User
	switch {
	case !slices.Equal(requested.Args, image.Args):
		return differ("the command line", "Args", requested.Args, image.Args)
	case requested.Cwd != image.Cwd:
		return differ("the working directory", "Cwd", requested.Cwd, image.Cwd)
	case have.UID != want.UID || have.GID != want.GID:
		return differ("the user", "User", fmt.Sprint(have.UID, ":", have.GID), fmt.Sprint(want.UID, ":", want.GID))
	}
	for _, gid := range have.AdditionalGids {
		if gid != want.GID && !slices.Contains(want.AdditionalGids, gid) {
			return differ("a group of the user", "User.AdditionalGids", fmt.Sprint(gid), fmt.Sprint(want.GID), fmt.Sprint(want.AdditionalGids))
		}
	}
	for _, v := range requested.Env {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains(image.Env, v) || !named(image.Env, name) && (serviceVariable.MatchString(v) || v == defaultPath) {
			continue
		}
		return differ(variable, "Env", v, image.Env)
	}
	for _, v := range image.Env {
		// One that is left out is as good as one that is changed.
		if !slices.Contains(requested.Env, v) {
			return differ(variable, "Env", requested.Env, v)
		}
	}
	return nil
}

// defaultPath is what engines give an image without a PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func named(env []string, name string) bool {
	return slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
}
