// SPDX-License-Identifier: Apache-2.0

package pod

import (
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

// AsImageSays admits a process that does what the verified image's own config says,
// and nothing else that the host could have written: the same arguments, working
// directory and user, and of the environment the image's and serviceVariable's. It
// is for a guest whose tenant brought no policy (docs/security.md 15).
func AsImageSays(image, requested *specs.Process) error {
	refused := func(what string) error {
		return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: %s is not what the image says, and no policy of the tenant names it", what)
	}
	switch {
	case !slices.Equal(requested.Args, image.Args):
		return refused("the command line")
	case requested.Cwd != image.Cwd:
		return refused("the working directory")
	case requested.User.UID != image.User.UID || requested.User.GID != image.User.GID:
		return refused("the user")
	}
	for _, gid := range requested.User.AdditionalGids {
		if gid != image.User.GID && !slices.Contains(image.User.AdditionalGids, gid) {
			return refused("a group of the user")
		}
	}
	for _, v := range requested.Env {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains(image.Env, v) || !named(image.Env, name) && (serviceVariable.MatchString(v) || v == defaultPath) {
			continue
		}
		return refused("a variable of the environment")
	}
	for _, v := range image.Env {
		// One that is left out is as good as one that is changed.
		if !slices.Contains(requested.Env, v) {
			return refused("a variable of the environment")
		}
	}
	return nil
}

// defaultPath is what engines give an image without a PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func named(env []string, name string) bool {
	return slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
}
