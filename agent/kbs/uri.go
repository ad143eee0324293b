// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"fmt"
	"strings"
)

// maxURISize is far above real names and keeps request lines small.
const maxURISize = 1 << 10

// defaultPlugin serves stored secrets.
const defaultPlugin = "resource"

// ResourceURI names something at the broker: kbs[+plugin]://[host]/seg/seg…[?query].
// The host is not part of it: the broker's address comes from the configuration. The
// zero value is not valid.
type ResourceURI struct {
	plugin   string
	segments []string
	query    string
}

// ParseResourceURI accepts what a broker can serve: a plugin name, segments that could
// not climb out of their path, exactly three of them for stored secrets, and a query of
// plain characters.
func ParseResourceURI(uri string) (ResourceURI, error) {
	u, err := parseResourceURI(uri)
	if err != nil {
		return ResourceURI{}, fmt.Errorf("parsing resource URI %.128q: %w", uri, err)
	}
	return u, nil
}

func parseResourceURI(uri string) (ResourceURI, error) {
	if len(uri) > maxURISize {
		return ResourceURI{}, fmt.Errorf("%d bytes, at most %d allowed", len(uri), maxURISize)
	}
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return ResourceURI{}, fmt.Errorf("want kbs:///segment/… or kbs+plugin:///segment/…")
	}
	u := ResourceURI{plugin: defaultPlugin}
	if plugin, hasPlugin := strings.CutPrefix(scheme, "kbs+"); hasPlugin {
		if !isSegment(plugin) {
			return ResourceURI{}, fmt.Errorf("bad plugin name")
		}
		u.plugin = plugin
	} else if scheme != "kbs" {
		return ResourceURI{}, fmt.Errorf("the scheme is neither kbs nor kbs+plugin")
	}
	host, path, ok := strings.Cut(rest, "/")
	if !ok || strings.Trim(host, letters+digits+"-._:[]") != "" {
		return ResourceURI{}, fmt.Errorf("no path behind the host")
	}
	path, query, hasQuery := strings.Cut(path, "?")
	if hasQuery && (query == "" || strings.Trim(query, letters+digits+"-._~!$&'()*+,;=:@/%") != "") {
		return ResourceURI{}, fmt.Errorf("bad query")
	}
	u.query = query
	u.segments = strings.Split(path, "/")
	for _, s := range u.segments {
		if !isSegment(s) {
			return ResourceURI{}, fmt.Errorf("bad path segment %.64q", s)
		}
	}
	if u.plugin == defaultPlugin && len(u.segments) != 3 {
		return ResourceURI{}, fmt.Errorf("got %d path segments, want 3 (repository, type, tag)", len(u.segments))
	}
	return u, nil
}

const (
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	digits  = "0123456789"
)

// isSegment follows Trustee: letters, digits, '_', '-' and, not in front, '.'.
func isSegment(s string) bool {
	return s != "" && s[0] != '.' && strings.Trim(s, letters+digits+"_-.") == ""
}

// path is the request path below /kbs/v0/, with the query.
func (u ResourceURI) path() string {
	path := u.plugin + "/" + strings.Join(u.segments, "/")
	if u.query != "" {
		path += "?" + u.query
	}
	return path
}

// String returns the canonical form, without a host and without the default plugin.
func (u ResourceURI) String() string {
	scheme, rest := "kbs", strings.TrimPrefix(u.path(), u.plugin)
	if u.plugin != defaultPlugin {
		scheme += "+" + u.plugin
	}
	return scheme + "://" + rest
}
