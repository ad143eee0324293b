// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A registry's answer is shown, but cannot steer the terminal.
func TestErrorsArePrintable(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "go \x1b[2J\x1b]0;away\x07\r\nnow\u009b31m")
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"encrypt", "docker://" + host + "/a:1", "oci:" + t.TempDir(), "--key-id", "kbs:///a/b/c",
		"--kek-out", t.TempDir() + "/kek", "--insecure-registry", host}, streams{out: &out, err: &errs})
	if code != exitFailed || out.Len() != 0 {
		t.Errorf("exit code %d with %q, want %d", code, &out, exitFailed)
	}
	if text := strings.TrimSuffix(errs.String(), "\n"); !strings.Contains(text, "away") || strings.ContainsAny(text, "\x1b\x07\r\n\u009b") {
		t.Errorf("got %q", text)
	}
}
