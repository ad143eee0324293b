// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	// maxUserName bounds one name, maxUserGroups the groups of one request.
	maxUserName   = 256
	maxUserGroups = 64
)

// namedUser turns the names of a request into numbers by the accounts in the container's own root, and no others:
// under guest pull the shim cannot read them. A process that is asked for by name has exactly this user, whatever
// numbers stand beside the names.
func (e *entry) namedUser(request string, from *kata.StringUser) (specs.User, error) {
	if e.resolve == nil {
		return specs.User{}, fail(codes.PermissionDenied, "%s is blocked by policy: string-user: this container has no accounts", request)
	}
	names := append([]string{from.GetUid(), from.GetGid()}, from.GetAdditionalGids()...)
	for _, name := range names {
		if len(name) > maxUserName || strings.ContainsAny(name, ":\n\x00") {
			return specs.User{}, fail(codes.InvalidArgument, "%s is no name of a user or group", quoted(name))
		}
	}
	if from.GetUid() == "" || len(names) > maxUserGroups {
		return specs.User{}, fail(codes.InvalidArgument, "the request names no user, or more than %d groups", maxUserGroups)
	}
	who := from.GetUid()
	if from.GetGid() != "" {
		who += ":" + from.GetGid()
	}
	unknown := func(name string, err error) error {
		return &Failure{Code: codes.InvalidArgument, Phrase: "the container's accounts do not have " + quoted(name), Err: err}
	}
	user, err := e.resolve(who)
	if err != nil {
		return specs.User{}, unknown(who, err)
	}
	for _, name := range from.GetAdditionalGids() {
		if name == "" {
			return specs.User{}, unknown(name, nil)
		}
		group, err := e.resolve("0:" + name)
		if err != nil {
			return specs.User{}, unknown(name, err)
		}
		user.AdditionalGids = append(user.AdditionalGids, group.GID)
	}
	return user, nil
}
