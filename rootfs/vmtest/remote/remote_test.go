// SPDX-License-Identifier: Apache-2.0

//go:build vmtest

package remote

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDo(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script("ok", `/bin/echo "out $1"; /bin/echo err >&2`)
	script("three", "exit 3")
	script("slow", "/bin/sleep 60")
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	powered := make(chan string, 1)
	g := &guest{dir: dir, scratch: t.TempDir(), exec: (*exec.Cmd).Run, power: func(s string) error { powered <- s; return os.ErrInvalid }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.serve(ctx, l) }()
	do := func(r Request) (int, string, error) {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var b bytes.Buffer
		status, err := Do(c, r, &b)
		return status, b.String(), err
	}
	if status, out, err := do(Request{Run: "ok", Args: []string{"one"}, Seconds: 10}); status != 0 || out != "out one\nerr\n" || err != nil {
		t.Errorf("%d %q %v", status, out, err)
	}
	if status, _, err := do(Request{Run: "three", Seconds: 10}); status != 3 || err != nil {
		t.Errorf("%d %v", status, err)
	}
	started := time.Now()
	if _, _, err := do(Request{Run: "slow", Seconds: 1}); err == nil || time.Since(started) > 10*time.Second {
		t.Errorf("a slow program: %v after %v", err, time.Since(started))
	}
	for _, bad := range []string{"missing", "../ok", ""} {
		if _, _, err := do(Request{Run: bad, Seconds: 10}); err == nil || !strings.Contains(err.Error(), "guest: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, _, err := do(Request{Power: "off"}); err != nil || <-powered != "off" {
		t.Errorf("power: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
