// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json"
)

// maxAnswer caps a list of containers and an error's text.
const maxAnswer = 1 << 20

// Client asks a Supervisor that serves in another process.
type Client struct{ http *http.Client }

// NewClient is a client of the unix socket at path. Nothing is dialled yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// List returns every declared container.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	resp, err := c.ask(ctx, http.MethodGet, prefix)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var list []Status
	if err := json.UnmarshalRead(io.LimitReader(resp.Body, maxAnswer), &list); err != nil {
		return nil, fmt.Errorf("reading the list of containers: %w", err)
	}
	return list, nil
}

// Log copies the kept output of a container to w. With follow it goes on until the
// container stays down or ctx ends. lost is called first, with how many bytes are gone.
func (c *Client) Log(ctx context.Context, name string, follow bool, w io.Writer, lost func(int64)) error {
	path := prefix + "/" + url.PathEscape(name) + "/log"
	if follow {
		path += "?follow=1"
	}
	resp, err := c.ask(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := strconv.ParseInt(resp.Header.Get(lostHeader), 10, 64)
	if err != nil {
		return fmt.Errorf("reading the answer's %s: %w", lostHeader, err)
	}
	lost(n)
	_, err = io.Copy(w, resp.Body)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Stop asks a container to end and returns when it is down for good.
func (c *Client) Stop(ctx context.Context, name string) error {
	resp, err := c.ask(ctx, http.MethodPost, prefix+"/"+url.PathEscape(name)+"/stop")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// ask sends a request without a body. The caller closes the body of the answer.
func (c *Client) ask(ctx context.Context, method, path string) (*http.Response, error) {
	// The host is a name that no socket has.
	req, err := http.NewRequestWithContext(ctx, method, "http://casemate"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("asking casemate serve: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("asking casemate serve: %w", err)
	}
	return nil, fmt.Errorf("asking casemate serve: %s", trimLine(text))
}

func trimLine(text []byte) string {
	for len(text) > 0 && text[len(text)-1] == '\n' {
		text = text[:len(text)-1]
	}
	return string(text)
}
