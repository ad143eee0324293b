// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
)

// Console collects what the guest prints on its serial line.
type Console struct {
	mu     sync.Mutex
	cond   *sync.Cond // on mu
	text   []byte     // guarded by mu; complete lines and the rest
	closed bool       // guarded by mu; nothing more comes
}

func newConsole() *Console {
	c := new(Console)
	c.cond = sync.NewCond(&c.mu)
	return c
}

// Write is how QEMU's output arrives.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, bytes.ReplaceAll(p, []byte("\r"), nil)...)
	c.cond.Broadcast()
	return len(p), nil
}

func (c *Console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.cond.Broadcast()
}

// String returns all lines so far, without those that QEMU prints when its vsock device goes away.
func (c *Console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for line := range strings.Lines(string(c.text)) {
		if !strings.Contains(line, "Failed to read msg header") && !strings.Contains(line, "vhost_set_vring_call failed") &&
			!strings.Contains(line, "Failed to write msg") && !strings.Contains(line, "vhost VQ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Expect waits for a line that contains text and returns it.
func (c *Console) Expect(ctx context.Context, text string) (string, error) {
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cond.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for line := range bytes.Lines(c.text) {
			if bytes.HasSuffix(line, []byte("\n")) && bytes.Contains(line, []byte(text)) {
				return strings.TrimSuffix(string(line), "\n"), nil
			}
		}
		if c.closed || ctx.Err() != nil {
			return "", fmt.Errorf("the console did not say %q", text)
		}
		c.cond.Wait()
	}
}
