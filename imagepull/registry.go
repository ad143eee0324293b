// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// documentTimeout bounds one request for a manifest or config, its body
// included, and the handshake before the first one.
const documentTimeout = time.Minute

const userAgent = "casemate"

// registry reads one repository over the OCI distribution API.
type registry struct {
	ref     name.Reference
	client  *http.Client
	retrier retrier
}

// login asks the registry how it wants to be spoken to and gets a token for
// pulling from the repository where one is needed. go-containerregistry does
// that, over a transport that obeys guard; it renews the token when it expires.
func login(ctx context.Context, repo name.Repository, auth *AuthFile, g *guard, r retrier) (*http.Client, error) {
	login, key := auth.lookup(repo)
	scopes := []string{repo.Scope(transport.PullScope)}
	var rt http.RoundTripper
	err := r.do(ctx, func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, documentTimeout, ErrStalled)
		defer cancel()
		var err error
		rt, err = transport.NewWithContext(ctx, repo.Registry, login, transport.NewUserAgent(g, userAgent), scopes)
		return handshakeError(ctx, err)
	})
	if err != nil {
		if key == "" {
			key = "none"
		}
		return nil, fmt.Errorf("connecting to registry %s (auth.json entry: %s): %w", repo.RegistryStr(), key, err)
	}
	return &http.Client{Transport: rt, CheckRedirect: g.checkRedirect}, nil
}

// handshakeError keeps the status of a failed handshake and drops the texts that
// came from the network: a token server's answer may hold a token.
func handshakeError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrInsecure):
		// go-containerregistry tried HTTP after HTTPS; err has both, HTTPS first. Where
		// that may succeed the next time HTTP is beside the point.
		again := classify(ctx, err)
		if is[*retryable](again) {
			return again
		}
		return fmt.Errorf("%w; over HTTPS: %w", ErrInsecure, withoutURL(err))
	case is[*transport.Error](err):
		e, _ := errors.AsType[*transport.Error](err)
		return statusError(e.StatusCode, http.Header{})
	case ctx.Err() == nil && !is[*url.Error](err):
		return fmt.Errorf("%w: unusable authentication challenge or token", ErrRegistry)
	}
	return classify(ctx, err)
}

func (r *registry) root(ctx context.Context) ([]byte, *v1.Hash, error) {
	if d, ok := r.ref.(name.Digest); ok {
		want, err := parseDigest(d.DigestStr())
		if err != nil {
			return nil, nil, err
		}
		raw, err := r.document(ctx, want)
		return raw, &want, err
	}
	raw, err := r.tagged(ctx, r.ref.Identifier())
	return raw, nil, err
}

func (r *registry) document(ctx context.Context, digest v1.Hash) ([]byte, error) {
	return r.manifest(ctx, "manifests", digest.String())
}

func (r *registry) tagged(ctx context.Context, tag string) ([]byte, error) {
	return r.manifest(ctx, "manifests", tag)
}

// referrers asks by the API of OCI distribution-spec 1.1, "Listing Referrers".
func (r *registry) referrers(ctx context.Context, digest v1.Hash) ([]byte, error) {
	return r.manifest(ctx, "referrers", digest.String())
}

// manifest gets a document; kind is "manifests", or "referrers" for an index of them.
func (r *registry) manifest(ctx context.Context, kind, identifier string) ([]byte, error) {
	accept := strings.Join([]string{typeOCIManifest, typeOCIIndex, typeDockerManifest, typeDockerList}, ", ")
	var raw []byte
	err := r.retrier.do(ctx, func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, documentTimeout, ErrStalled)
		defer cancel()
		resp, err := r.get(ctx, kind, identifier, http.Header{"Accept": {accept}})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%w: status %d", ErrRegistry, resp.StatusCode)
		}
		raw, err = io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
		if err != nil {
			return classify(ctx, err)
		}
		if len(raw) > maxDocument {
			return fmt.Errorf("%w: a manifest of more than %d bytes", ErrTooLarge, maxDocument)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fetching manifest %s of %s: %w", identifier, r.ref.Context(), err)
	}
	return raw, nil
}

// blob does not retry: its caller does, from the offset it has reached.
func (r *registry) blob(ctx context.Context, digest v1.Hash, offset int64) (io.ReadCloser, int64, int64, error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := r.get(ctx, "blobs", digest.String(), header)
	if err != nil {
		return nil, 0, 0, err
	}
	start := int64(0)
	if resp.StatusCode == http.StatusPartialContent {
		if start, err = rangeStart(resp.Header.Get("Content-Range")); err != nil || start != offset {
			resp.Body.Close()
			return nil, 0, 0, fmt.Errorf("%w: Content-Range: got %.80q, want bytes %d-", ErrRegistry, resp.Header.Get("Content-Range"), offset)
		}
	}
	return resp.Body, start, resp.ContentLength, nil
}

// rangeStart reads the first position of "bytes FIRST-LAST/TOTAL" (RFC 9110, 14.4).
func rangeStart(contentRange string) (int64, error) {
	rest, ok := strings.CutPrefix(contentRange, "bytes ")
	first, _, ok2 := strings.Cut(rest, "-")
	if !ok || !ok2 {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(first, 10, 64)
}

// get returns a response with status 200 or 206; the caller closes its body.
func (r *registry) get(ctx context.Context, kind, identifier string, header http.Header) (*http.Response, error) {
	repo := r.ref.Context()
	// https here is corrected by the transport when the handshake went over
	// HTTP, which guard allows for an insecure registry alone.
	u := url.URL{Scheme: "https", Host: repo.RegistryStr(), Path: "/v2/" + repo.RepositoryStr() + "/" + kind + "/" + identifier}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrReference, repo)
	}
	req.Header = header
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, handshakeError(ctx, err) // a token may have been renewed on the way
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
	return nil, statusError(resp.StatusCode, resp.Header)
}

// statusError is the one table of what an HTTP status means here.
func statusError(code int, header http.Header) error {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: status %d", ErrUnauthorized, code)
	case http.StatusNotFound:
		return fmt.Errorf("%w: status %d", ErrNotFound, code)
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: status %d", ErrShortBlob, code)
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return &retryable{error: fmt.Errorf("%w: status %d", ErrRegistry, code), after: retryAfter(header.Get("Retry-After"))}
	}
	return fmt.Errorf("%w: status %d", ErrRegistry, code)
}

// retryAfter reads the seconds form of Retry-After (RFC 9110, 10.2.3). The date
// form is read as no advice: the guest's clock is the host's.
func retryAfter(value string) time.Duration {
	seconds, err := strconv.Atoi(strings.TrimSpace(value))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, 1<<20)) * time.Second
}
