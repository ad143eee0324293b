// SPDX-License-Identifier: Apache-2.0

package pod

import "testing"

// TestResolverText: a file's lines as the runtimes send them, and what a host could hide among them.
func TestResolverText(t *testing.T) {
	for name, tt := range map[string]struct {
		lines []string
		want  string // "!" is a refusal
	}{
		"a file cut at its line feeds": {[]string{"# comment", "search a.b  c", "nameserver\t10.0.0.1", "options ndots:5", "", "; end", ""}, "search a.b c\nnameserver 10.0.0.1\noptions ndots:5\n"},
		"an address with a zone":       {[]string{"nameserver fe80::1%eth0"}, "nameserver fe80::1%eth0\n"},
		"other words":                  {[]string{"lookup file", "sortlist 10.0.0.0"}, ""},
		"a name instead of an address": {[]string{"nameserver evil.example"}, "!"},
		"two addresses":                {[]string{"nameserver 10.0.0.1 10.0.0.2"}, "!"},
		"no address":                   {[]string{"nameserver"}, "!"},
		"a line in a line":             {[]string{"search a\nnameserver 1.1.1.1"}, "!"},
		"a byte that ends strings":     {[]string{"search a\x00b"}, "!"},
	} {
		got, err := resolverText(tt.lines)
		if (err != nil) != (tt.want == "!") || err == nil && got != tt.want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}
