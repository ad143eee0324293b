// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.yaml.in/yaml/v3"

	"github.com/casemate/casemate/imagepull/trust"
)

const (
	// maxLookasideFile caps a registries.d file: a few lines for each registry.
	maxLookasideFile = 1 << 20
	// maxMessage caps one OpenPGP signature.
	maxMessage = 128 << 10
)

// Lookaside says where the OpenPGP signatures of images are kept, in the format
// of containers-registries.d(5). nil knows of none. Safe for concurrent use.
type Lookaside struct {
	fallback string            // base URL for what no scope covers, "" for none
	scopes   map[string]string // registry[/path] -> base URL
}

type lookasideEntry struct {
	Lookaside        string `yaml:"lookaside"`
	Sigstore         string `yaml:"sigstore"` // the name before containers-registries.d had lookaside
	Staging          string `yaml:"lookaside-staging"`
	SigstoreStaging  string `yaml:"sigstore-staging"`
	UseSigstoreFiles *bool  `yaml:"use-sigstore-attachments"`
}

// ParseLookaside reads one registries.d file. Bases are file:// or https:// URLs,
// or http:// ones: a signature proves itself, a store can only withhold it.
// Staging stores are for writers and not read.
func ParseLookaside(raw []byte) (*Lookaside, error) {
	if len(raw) > maxLookasideFile {
		return nil, fmt.Errorf("reading registries.d: got %d bytes, want at most %d", len(raw), maxLookasideFile)
	}
	var w struct {
		Default lookasideEntry            `yaml:"default-docker"`
		Docker  map[string]lookasideEntry `yaml:"docker"`
	}
	dec := yaml.NewDecoder(strings.NewReader(string(raw)))
	dec.KnownFields(true)
	if err := dec.Decode(&w); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading registries.d: %w", yamlError(err))
	}
	l := &Lookaside{scopes: map[string]string{}}
	var err error
	if l.fallback, err = w.Default.base(); err != nil {
		return nil, fmt.Errorf("reading registries.d: default-docker: %w", err)
	}
	for scope, entry := range w.Docker {
		if l.scopes[scope], err = entry.base(); err != nil {
			return nil, fmt.Errorf("reading registries.d: docker[%q]: %w", scope, err)
		}
	}
	return l, nil
}

// yamlLine is where the library says that a document is wrong, and which key it does not know there; no value.
var yamlLine = regexp.MustCompile(`line [0-9]+(: field [a-z-]{1,32} not found)?`)

// yamlError is tomlError for YAML.
func yamlError(err error) error {
	if line := yamlLine.FindString(err.Error()); line != "" {
		return fmt.Errorf("%s: not YAML of this form", line)
	}
	return errors.New("not YAML of this form")
}

func (e lookasideEntry) base() (string, error) {
	text := e.Lookaside
	if text == "" {
		text = e.Sigstore
	}
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	if err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil ||
		(u.Scheme != "file" || u.Host != "") && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		return "", fmt.Errorf("lookaside %.200q: want file:///PATH or https://HOST[/PATH]", withoutUser(text))
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// base finds the store for an image: that of the longest scope its name is in.
func (l *Lookaside) base(ref name.Reference) string {
	if l == nil {
		return ""
	}
	canonical := trust.RepositoryName(ref.Context())
	if base, ok := l.scopes[canonical+delimiter(ref)+ref.Identifier()]; ok {
		return base
	}
	for scope := canonical; scope != "."; scope = path.Dir(scope) {
		if base, ok := l.scopes[scope]; ok {
			return base
		}
	}
	host, _, _ := strings.Cut(canonical, "/")
	for {
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return l.fallback
		}
		if base, ok := l.scopes["*."+parent]; ok {
			return base
		}
		host = parent
	}
}

// lookasideStore reads the signatures of one image.
type lookasideStore struct {
	base string // "" has none
	repo name.Repository
	http *http.Client
}

// messages returns signature-1, signature-2 and so on, up to the first that is
// not there.
func (s lookasideStore) messages(ctx context.Context, digest v1.Hash) ([][]byte, error) {
	if s.base == "" {
		return nil, nil
	}
	dir := s.base + "/" + s.repo.RepositoryStr() + "@" + digest.Algorithm + "=" + digest.Hex
	var list [][]byte
	for i := 1; i <= maxSignatures; i++ {
		raw, err := s.read(ctx, fmt.Sprintf("%s/signature-%d", dir, i))
		if errors.Is(err, ErrNotFound) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("fetching signature %d of %s: %w", i, digest, err)
		}
		list = append(list, raw)
	}
	return nil, fmt.Errorf("%w: more than %d signatures", ErrTooLarge, maxSignatures)
}

func (s lookasideStore) read(ctx context.Context, at string) ([]byte, error) {
	r, err := s.open(ctx, at)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxMessage+1))
	if err != nil {
		return nil, classify(ctx, err)
	}
	if len(raw) > maxMessage {
		return nil, fmt.Errorf("%w: a signature of more than %d bytes", ErrTooLarge, maxMessage)
	}
	return raw, nil
}

func (s lookasideStore) open(ctx context.Context, at string) (io.ReadCloser, error) {
	if file, ok := strings.CutPrefix(at, "file://"); ok {
		f, err := os.Open(filepath.FromSlash(file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, file)
		}
		return f, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: lookaside URL", ErrReference)
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, classify(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, statusError(resp.StatusCode, resp.Header)
	}
	return resp.Body, nil
}
