// SPDX-License-Identifier: Apache-2.0

package config

import (
	"log/slog"
	"strings"
	"testing"
)

const volumeText = `[volume.data]
key = "kbs:///default/volume/data"
type = "luks2"
cipher = "aes-xts-plain64"
integrity = "hmac(sha256)"
sector_size = 4096
offset = 16777216
own_header = true
fs = "ext4"
`

func TestVolumes(t *testing.T) {
	m, err := parse(volumeText)
	if err != nil {
		t.Fatal(err)
	}
	v := m.Volumes["data"]
	if v.Key != "kbs:///default/volume/data" || v.Type != "luks2" || v.Cipher != "aes-xts-plain64" || v.Integrity != "hmac(sha256)" ||
		*v.SectorSize != 4096 || *v.Offset != 16<<20 || v.Size != 0 || v.Header != "" || !*v.OwnHeader {
		t.Errorf("got %+v", v)
	}
	if w := m.Weaknesses(); len(w) > 0 {
		t.Errorf("weaknesses %q", w)
	}
	edit := func(old, new string) string { return strings.Replace(volumeText, old, new, 1) }
	for name, c := range map[string]struct{ text, want string }{
		"long name":             {edit("[volume.data]", "[volume."+strings.Repeat("d", maxVolumeName+1)+"]"), "at most 63"},
		"no key":                {edit(`key = "kbs:///default/volume/data"`, ""), "volume.data: key"},
		"key of another place":  {edit("kbs:///default/volume/data", "file:///etc/passwd"), "file:///run/casemate/keys/NAME"},
		"key above the place":   {edit("kbs:///default/volume/data", "file:///run/casemate/keys/../x"), "file:///run/casemate/keys/NAME"},
		"key over HTTP":         {edit("kbs:///", "https://"), "volume.data: key"},
		"no type":               {edit(`type = "luks2"`, ""), "type and cipher"},
		"no cipher":             {edit(`cipher = "aes-xts-plain64"`, ""), "type and cipher"},
		"no integrity":          {edit(`integrity = "hmac(sha256)"`, ""), "integrity: want it set"},
		"no sector size":        {edit("sector_size = 4096", ""), "sector_size and offset"},
		"no offset":             {edit("offset = 16777216", ""), "sector_size and offset"},
		"no own_header":         {edit("own_header = true", ""), "own_header: want"},
		"no fs":                 {edit(`fs = "ext4"`, ""), `fs ""`},
		"another fs":            {edit(`fs = "ext4"`, `fs = "xfs"`), `fs "xfs"`},
		"mount alone":           {volumeText + "mount = '/data'\n", "device \"\""},
		"mount over /proc":      {volumeText + "mount = '/proc/1'\ndevice = '/dev/x'\n", "outside of /proc"},
		"mount over all":        {volumeText + "mount = '/'\ndevice = '/dev/x'\n", "absolute path"},
		"mount that goes up":    {volumeText + "mount = '/data/../etc'\ndevice = '/dev/x'\n", "absolute path"},
		"mount of no fs":        {edit(`"ext4"`, `"none"`) + "mount = '/data'\ndevice = '/dev/x'\n", "no file system to mount"},
		"first use unbound":     {volumeText + "mount = '/data'\ndevice = '/dev/x'\ncreate = 'first-use'\n", `grant ""`},
		"grant that is the key": {volumeText + "mount = '/data'\ndevice = '/dev/x'\ncreate = 'first-use'\ngrant = 'kbs:///default/volume/data'\n", "not the key"},
		"grant of a file":       {volumeText + "mount = '/data'\ndevice = '/dev/x'\ncreate = 'first-use'\ngrant = 'file:///run/casemate/keys/g'\n", "grant"},
		"grant for nothing":     {volumeText + "grant = 'kbs:///a/b/c'\n", "with it"},
		"first use of nobody":   {volumeText + "create = 'first-use'\ngrant = 'kbs:///a/b/c'\n", "mount and device"},
		"always create":         {volumeText + "create = 'always'\n", `create "always"`},
		"uid without fs":        {edit(`"ext4"`, `"none"`) + "uid = 5\n", "uid and gid"},
		"two of one device":     {volumeText + "mount = '/data'\ndevice = '/dev/x'\n" + edit("volume.data", "volume.more") + "mount = '/more'\ndevice = '/dev/x'\n", "it is volume."},
		"negative offset":       {edit("16777216", "-1"), "offset -1"},
		"mount of another":      {volumeText + "[services]\nsecure_mount = ['data', 'other']\n", `no volume "other"`},
		"name that is scratch":  {edit("volume.data", "volume.scratch"), "means scratch"},
		"unknown key":           {edit("own_header", "discards = true\nown_header"), `unknown key "volume.data.discards"`},
		"another spelling":      {edit("own_header", "Size = 1\nown_header"), "lower case"},
		"name with a slash":     {edit("volume.data", `volume."a/b"`), "want a name"},
		"name like an option":   {edit("volume.data", `volume."-f"`), "want a name"},
		"replay of another":     {volumeText + "replay = 'tpm'\n", `replay "tpm"`},
		"replay, not ours":      {edit("own_header = true", "own_header = false") + "replay = 'kbs'\n", "replay: want own_header"},
		"replay, detached":      {volumeText + "header = '/h'\nreplay = 'kbs'\n", "no detached header"},
		"replay over HTTP":      {volumeText + "replay = 'kbs'\n[kbs]\nurl = 'http://x'\nplain_http = true\n", "kbs.plain_http"},
	} {
		if _, err := parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// TestVolumesWeaknesses: a volume that is not protected says so at the start.
func TestVolumesWeaknesses(t *testing.T) {
	m, err := parse(strings.NewReplacer("hmac(sha256)", "none", "own_header = true", "own_header = false").Replace(volumeText))
	if err != nil {
		t.Fatal(err)
	}
	w := m.Weaknesses()
	if len(w) != 2 || !strings.HasPrefix(w[0], "volume.data.integrity") || !strings.HasPrefix(w[1], "volume.data.own_header") {
		t.Errorf("got %q", w)
	}
}

// TestVolumesFromInitData: it may bring volumes and repeat them, and never change one.
func TestVolumesFromInitData(t *testing.T) {
	root, err := parse(volumeText)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text, want string
		volumes    int
	}{
		"the same":      {volumeText, "", 1},
		"a mount":       {"[services]\nsecure_mount = ['data', 'scratch']\n", "there is no volume", 0}, // a part is checked by itself
		"another":       {strings.Replace(volumeText, "volume.data", "volume.more", 1), "", 2},
		"without a MAC": {strings.Replace(volumeText, "hmac(sha256)", "none", 1), "volume.data is set twice", 0},
		"another key":   {strings.Replace(volumeText, "volume/data", "volume/evil", 1), "volume.data is set twice", 0},
		"a volume's key for containers": {
			"[services]\nrest_resources = ['kbs:///default/volume/data']\n", "the guest's own", 0},
	} {
		m, err := root.WithInitData(map[string]string{keyCasemate: c.text}, slog.New(slog.DiscardHandler))
		if c.want == "" && (err != nil || len(m.Volumes) != c.volumes) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %d volumes, %v", name, len(m.Volumes), err)
		}
	}
	if len(root.Volumes) != 1 {
		t.Error("joining changed what it joined")
	}
}
