// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/casemate/casemate/imagepull/trust"
)

const (
	// layoutScheme starts a reference to an OCI image layout directory.
	layoutScheme = "oci:"
	// layoutName is what the policy is asked about in place of a layout, whose
	// content says nothing credible about its name: an entry for it in the
	// policy, or else the policy's default, decides. No registry can have it
	// (RFC 6761, 6.4).
	layoutName = "oci-layout.invalid/image"
)

// What a repository and a tag are (OCI distribution-spec 1.1, "Pulling manifests").
// The parser lets more through: dots that a server takes for a way up, out of the
// scope that the policy's text comparison finds the name in.
var (
	repositoryForm = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// reference is a parsed image reference.
type reference struct {
	name name.Reference // registry/repository:tag or @digest; what the policy judges
	dir  string         // OCI image layout directory, "" for a registry
	tag  string         // of the layout; "" means its only image
}

// parseReference reads what a user asks for: a registry reference with Docker's
// defaults (docker.io, library/, latest) or oci:DIR[:TAG]. insecure lists the
// registries that may be spoken to over plain HTTP.
func parseReference(s string, insecure []string) (reference, error) {
	if path, ok := strings.CutPrefix(s, layoutScheme); ok {
		dir, tag, _ := strings.Cut(path, ":")
		if dir == "" {
			return reference{}, fmt.Errorf("%w: want oci:DIR[:TAG], got %.200q", ErrReference, s)
		}
		judged := layoutName
		if tag != "" {
			judged += ":" + tag
		}
		ref, err := name.NewTag(judged)
		if err != nil {
			return reference{}, fmt.Errorf("%w: %.128q is no tag", ErrReference, tag)
		}
		return reference{name: ref, dir: dir, tag: tag}, nil
	}
	ref, err := name.ParseReference(s, name.WeakValidation)
	if err == nil && isInsecure(ref.Context().RegistryStr(), insecure) {
		ref, err = name.ParseReference(s, name.WeakValidation, name.Insecure)
	}
	if err != nil {
		return reference{}, fmt.Errorf("%w: want [REGISTRY/]NAME[:TAG][@DIGEST] or oci:DIR[:TAG], got %.200q", ErrReference, s)
	}
	if err := checkForm(ref); err != nil {
		return reference{}, fmt.Errorf("%w: %w in %.200q", ErrReference, err, s)
	}
	return reference{name: ref}, nil
}

// checkForm refuses names that another reader could take for other names.
func checkForm(ref name.Reference) error {
	repo := ref.Context()
	tag, isTag := ref.(name.Tag)
	layouts, _, _ := strings.Cut(layoutName, "/")
	switch {
	case !repositoryForm.MatchString(repo.RepositoryStr()):
		return fmt.Errorf("repository %.200q, want lower-case names with single separators between slashes", repo.RepositoryStr())
	case isTag && !tagForm.MatchString(tag.TagStr()):
		return fmt.Errorf("tag %.128q, want a letter, digit or _ and then those, . and -", tag.TagStr())
	case strings.HasPrefix(trust.RepositoryName(repo), layouts+"/"):
		return fmt.Errorf("registry %s, which is the name of directories", repo.RegistryStr())
	}
	return nil
}

func isInsecure(registry string, insecure []string) bool {
	return slices.Contains(insecure, registry)
}
