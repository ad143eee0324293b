// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"fmt"
	"net"
	"net/http"
	"net/url"

	"golang.org/x/net/http/httpproxy"
)

// Proxy says which HTTP proxy carries the requests for images. A proxy sees names
// and sizes of an HTTPS registry, not its bytes: those are tunnelled. The zero
// value is no proxy; the environment is never asked.
type Proxy struct {
	HTTPS string // URL of the proxy for https registries, "" for none
	HTTP  string // URL of the proxy for insecure registries, "" for none
	// No lists what goes without: hosts, .domains, addresses and CIDR blocks,
	// divided by commas. This machine's own names always go without.
	No string
}

// check refuses what could only be understood as no proxy at all.
func (p Proxy) check() error {
	for _, text := range []string{p.HTTPS, p.HTTP} {
		if text == "" {
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" {
			return fmt.Errorf("image proxy: want http://HOST:PORT or https://HOST:PORT, got %.200q", withoutPassword(u, text))
		}
	}
	return nil
}

func withoutPassword(u *url.URL, text string) string {
	if u == nil {
		return "an unreadable URL"
	}
	if u.User != nil {
		return u.Redacted()
	}
	return text
}

// function is for http.Transport.
func (p Proxy) function() func(*http.Request) (*url.URL, error) {
	if p.HTTPS == "" && p.HTTP == "" {
		return nil
	}
	c := httpproxy.Config{HTTPProxy: p.HTTP, HTTPSProxy: p.HTTPS, NoProxy: p.No}
	choose := c.ProxyFunc()
	return func(req *http.Request) (*url.URL, error) { return choose(req.URL) }
}

// addresses are the proxies that are given by address, as a dialer sees them. One
// of them may be this machine's own: configuration says so, no registry can.
func (p Proxy) addresses() map[string]bool {
	list := map[string]bool{}
	for _, text := range []string{p.HTTPS, p.HTTP} {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		list[net.JoinHostPort(u.Hostname(), port)] = true
	}
	return list
}
