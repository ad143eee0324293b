// SPDX-License-Identifier: Apache-2.0

package config

import (
	"log/slog"
	"strings"
	"testing"
)

const scratchText = `[scratch]
device = "serial:scratch"
cipher = "aes-xts-plain64"
integrity = "hmac(sha256)"
min_size = 1073741824
`

// TestScratch: there is no scratch without integrity, and none that says only half of what it is.
func TestScratch(t *testing.T) {
	m, err := parse(scratchText)
	if want := (Scratch{Device: "serial:scratch", Cipher: "aes-xts-plain64", Integrity: "hmac(sha256)", MinSize: 1 << 30}); err != nil || m.Scratch != want {
		t.Fatalf("got %+v, %v", m.Scratch, err)
	}
	edit := func(old, new string) string { return strings.Replace(scratchText, old, new, 1) }
	for name, c := range map[string]struct{ text, want string }{
		"aegis":                {strings.NewReplacer("aes-xts-plain64", "aegis128-random", "hmac(sha256)", "aead").Replace(scratchText), ""},
		"a path":               {edit("serial:scratch", "/dev/vdb"), ""},
		"any size":             {edit("min_size = 1073741824", ""), ""},
		"no device":            {edit(`device = "serial:scratch"`, ""), "scratch.device"},
		"another directory":    {edit("serial:scratch", "/tmp/disk"), "want /dev/NAME"},
		"a path with dots":     {edit("serial:scratch", "/dev/../tmp/disk"), "want /dev/NAME"},
		"no serial number":     {edit("serial:scratch", "serial:"), "serial number of 1 to 20"},
		"a long one":           {edit("serial:scratch", "serial:123456789012345678901"), "serial number of 1 to 20"},
		"no cipher":            {edit(`cipher = "aes-xts-plain64"`, ""), "want both"},
		"no integrity":         {edit(`integrity = "hmac(sha256)"`, ""), "want both"},
		"integrity none":       {edit("hmac(sha256)", "none"), "scratch.integrity"},
		"gcm":                  {edit("aes-xts-plain64", "aes-gcm-random"), "scratch.cipher"},
		"another pair":         {edit("hmac(sha256)", "aead"), "scratch.integrity"},
		"negative size":        {edit("1073741824", "-1"), "min_size"},
		"an image store too":   {scratchText + "[image]\nstore = '/x'\n", "want one of them"},
		"an unknown key in it": {scratchText + "size = 1\n", "unknown key"},
	} {
		if _, err := parse(c.text); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := (Measured{}).WithInitData(map[string]string{keyCasemate: scratchText}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "measured root") {
		t.Errorf("from initdata: got %v", err)
	}
}
