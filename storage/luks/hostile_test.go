// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// TestHostileMetadata changes one thing in a good header whose checksums are then right again.
func TestHostileMetadata(t *testing.T) {
	kdfIs := func(kdf string) func(string) string {
		return func(s string) string {
			from := strings.Index(s, `"kdf":{`)
			return s[:from] + `"kdf":` + kdf + s[from+strings.Index(s[from:], "}")+1:]
		}
	}
	salt := `"salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="`
	for _, tt := range []struct {
		name   string
		change func(string) string
		want   string
	}{
		{"null cipher", swap(`"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"cipher_null-ecb","sector_size"`), "cipher_null"},
		{"null cipher in a key area", swap(`"encryption":"aes-xts-plain64","key_size"`, `"encryption":"cipher_null-ecb","key_size"`), "area cipher"},
		{"cbc", swap(`"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"aes-cbc-plain64","sector_size"`), "aes-cbc"},
		{"cipher changed", swap(`"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"aegis128-random","sector_size"`), "aegis128-random"},
		{"integrity changed", swap(`hmac(sha256)`, `crc32c`), "crc32c"},
		{"integrity null", swap(`"integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"}`, `"integrity":null`), "null at"},
		{"integrity in another case", swap(`"integrity"`, `"Integrity"`), "unknown"},
		{"journal encryption", swap(`"journal_encryption":"none"`, `"journal_encryption":"cbc(aes)"`), "journal"},
		{"integrity dropped", swap(`,"integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"}`, ``), "key slot 0: key of 96 bytes, want 64"},
		{"sector size", swap(`"sector_size":4096`, `"sector_size":2048`), "sector size 2048"},
		{"no sector size", swap(`,"sector_size":4096`, ``), "sector size 0"},
		{"data inside the header", swap(`"offset":"1048576"`, `"offset":"978944"`), "inside the header"},
		{"data not aligned", swap(`"offset":"1048576"`, `"offset":"1048577"`), "offset 1048577"},
		{"offset beyond all", swap(`"offset":"1048576"`, `"offset":"9223372036854775808"`), "decimal"},
		{"no offset", swap(`"offset":"1048576",`, ``), "no offset"},
		{"negative offset", swap(`"offset":"1048576"`, `"offset":"-4096"`), "decimal"},
		{"offset as a number", swap(`"offset":"1048576"`, `"offset":1048576`), "offset"},
		{"IV moved", swap(`"iv_tweak":"0"`, `"iv_tweak":"8"`), "iv_tweak"},
		{"no size", swap(`"size":"dynamic",`, ``), "size"},
		{"size zero", swap(`"size":"dynamic"`, `"size":"0"`), `size "0"`},
		{"linear segment", swap(`"type":"crypt"`, `"type":"linear"`), "linear"},
		{"two segments", swap(`"segments":{"0":`, `"segments":{"1":{"type":"crypt","offset":"0","size":"4096","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":512},"0":`), "2 segments"},
		{"segment doubled", swap(`"segments":{"0":`, `"segments":{"0":{},"0":`), "duplicate"},
		{"segment flags", swap(`"type":"crypt"`, `"flags":["in-reencryption"],"type":"crypt"`), "unknown"},
		{"reencryption slot", swap(`"type":"luks2"`, `"type":"reencrypt"`), "reencrypt"},
		{"reencryption required", swap(`"config":{`, `"config":{"requirements":{"mandatory":["online-reencrypt-v2"]},`), "online-reencrypt-v2"},
		{"unknown requirement", swap(`"config":{`, `"config":{"requirements":{"mandatory":["quantum"]},`), "quantum"},
		{"requirement of another kind", swap(`"config":{`, `"config":{"requirements":{"mandatory":[],"backup":["x"]},`), "unknown"},
		{"discards", swap(`"config":{`, `"config":{"flags":["allow-discards"],`), "allow-discards"},
		{"unknown flag", swap(`"config":{`, `"config":{"flags":["x"],`), `"x"`},
		{"json size", swap(`"json_size":"12288"`, `"json_size":"4096"`), "json_size"},
		{"key slots' size", swap(`"keyslots_size":"950272"`, `"keyslots_size":"999999999488"`), "keyslots_size"},
		{"key slots' size odd", swap(`"keyslots_size":"950272"`, `"keyslots_size":"1"`), "keyslots_size"},
		{"area over the header", swap(`"offset":"32768"`, `"offset":"4096"`), "area of"},
		{"area behind the end", swap(`"offset":"32768"`, `"offset":"1044480"`), "area of"},
		{"area too small", swap(`"size":"385024"`, `"size":"380928"`), "area of 380928"},
		{"area not aligned", swap(`"offset":"32768"`, `"offset":"32769"`), "area at 32769"},
		{"4 GiB argon2", kdfIs(`{"type":"argon2id","time":4,"memory":4194304,"cpus":4,` + salt + `}`), "4194304 KiB"},
		{"argon2 without end", kdfIs(`{"type":"argon2id","time":4096,"memory":1048576,"cpus":4,` + salt + `}`), "product"},
		{"argon2 time", kdfIs(`{"type":"argon2i","time":4294967295,"memory":64,"cpus":4,` + salt + `}`), "4294967295 passes"},
		{"argon2 without passes", kdfIs(`{"type":"argon2id","memory":64,"cpus":1,` + salt + `}`), "0 passes"},
		{"256 lanes", kdfIs(`{"type":"argon2id","time":1,"memory":4096,"cpus":256,` + salt + `}`), "256 lanes"},
		{"kdf mixed", kdfIs(`{"type":"argon2id","time":1,"memory":4096,"cpus":1,"hash":"sha256",` + salt + `}`), "pbkdf2's costs"},
		{"pbkdf2 without end", kdfIs(`{"type":"pbkdf2","hash":"sha256","iterations":2147483647,` + salt + `}`), "2147483647 iterations"},
		{"pbkdf2 once", kdfIs(`{"type":"pbkdf2","hash":"sha256","iterations":1,` + salt + `}`), "1 iterations"},
		{"pbkdf2 with md5", kdfIs(`{"type":"pbkdf2","hash":"md5","iterations":1000,` + salt + `}`), "md5"},
		{"no salt", kdfIs(`{"type":"pbkdf2","hash":"sha256","iterations":1000,"salt":""}`), "salt of 0"},
		{"few stripes", swap(`"stripes":4000`, `"stripes":1`), "1 stripes"},
		{"stripes without end", swap(`"stripes":4000`, `"stripes":2147483647`), "stripes"},
		{"splitter's hash", swap(`"stripes":4000,"hash":"sha256"`, `"stripes":4000,"hash":"sha1"`), "sha1"},
		{"slot beyond", swap(`"keyslots":{"0"`, `"keyslots":{"32"`), `"32"`},
		{"slot with a zero", swap(`"keyslots":{"0"`, `"keyslots":{"00"`), `"00"`},
		{"slot that no digest covers", swap(`"keyslots":["0"],"segments"`, `"keyslots":[],"segments"`), "covers 0 key slots"},
		{"digest over another segment", swap(`"segments":["0"]`, `"segments":["1"]`), "covers segments"},
		{"no digest", func(s string) string {
			from, to := strings.Index(s, `"digests":{`), strings.Index(s, `,"config"`)
			return s[:from] + `"digests":{}` + s[to:]
		}, "0 digests"},
		{"short digest", func(s string) string {
			at := strings.Index(s, `"digest":"`) + len(`"digest":"`)
			return s[:at] + "AAAA" + s[at+44:]
		}, "digest of 3 bytes"},
		{"own token twice", swap(`"tokens":{"0":`, `"tokens":{"1":{"type":"casemate-header","keyslots":[],"hmac":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},"0":`), "two tokens"},
		{"token without type", swap(`"tokens":{`, `"tokens":{"5":{},`), "token 5"},
		{"deep JSON", swap(`"tokens":{`, `"tokens":{"5":`+strings.Repeat("[", 500)+strings.Repeat("]", 500)+`,`), "deeper"},
		{"unknown member", swap(`{"keyslots"`, `{"x":1,"keyslots"`), "unknown"},
		{"bytes behind the JSON", func(s string) string { return s + "\x00{}" }, "zeros"},
		{"two objects", func(s string) string { return s + "{}" }, "after top-level"},
		{"no object", func(string) string { return "" }, "EOF"},
	} {
		l := attached()
		l.Integrity = IntegrityHMACSHA256
		d, _ := create(t, l)
		rewrite(t, d.b, tt.change)
		v, err := Open(context.Background(), d, passphrase, Expect{Layout: l})
		if v != nil || err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestHostileBinary attacks the binary part: sizes, copies and their checksums.
func TestHostileBinary(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(d *disk)
		want   string
	}{
		{"no signature", func(d *disk) { d.b[0] = 'X' }, "no LUKS signature"},
		{"only the secondary copy", func(d *disk) { clear(d.b[:minHeader]) }, "no LUKS signature"},
		{"only the primary copy", func(d *disk) { clear(d.b[minHeader : 2*minHeader]) }, "secondary copy"},
		{"version 3", func(d *disk) { d.b[7] = 3 }, "version 3"},
		{"size zero", func(d *disk) { both(d.b, put64(v2Size, 0)) }, "a copy has 0 bytes"},
		{"size beyond all", func(d *disk) { both(d.b, put64(v2Size, 1<<63)) }, "a copy has"},
		{"huge JSON", func(d *disk) { both(d.b, put64(v2Size, 4<<20)) }, "a copy has 4194304"},
		{"size no power of two", func(d *disk) { both(d.b, put64(v2Size, 24<<10)) }, "a copy has 24576"},
		{"size of the secondary", func(d *disk) { put64(v2Size, 32<<10)(d.b[minHeader:]); reseal(d.b[minHeader : 2*minHeader]) }, "size 32768"},
		{"checksum of the primary", func(d *disk) { d.b[v2Checksum] ^= 1 }, "primary copy: checksum"},
		{"checksum of the secondary", func(d *disk) { d.b[minHeader+v2Checksum] ^= 1 }, "secondary copy: checksum"},
		{"checksum by another hash", func(d *disk) { both(d.b, func(p []byte) { copy(p[v2Algorithm:], "md5\x00\x00\x00") }) }, "checksum algorithm"},
		{"newer secondary", func(d *disk) { put64(v2Sequence, 9)(d.b[minHeader:]); reseal(d.b[minHeader : 2*minHeader]) }, "sequence number"},
		{"newer primary", func(d *disk) { put64(v2Sequence, 9)(d.b); reseal(d.b[:minHeader]) }, "sequence number"},
		{"other metadata in the secondary", func(d *disk) { d.b[minHeader+binarySize] = ' '; reseal(d.b[minHeader : 2*minHeader]) }, "metadata"},
		{"other UUID in the secondary", func(d *disk) { d.b[minHeader+v2UUID] ^= 1; reseal(d.b[minHeader : 2*minHeader]) }, "UUID"},
		{"no UUID", func(d *disk) { both(d.b, func(p []byte) { clear(p[v2UUID:v2Subsystem]) }) }, "UUID"},
		{"place of the primary", func(d *disk) { put64(v2Offset, 512)(d.b); reseal(d.b[:minHeader]) }, "lies at 512"},
		{"secondary as primary", func(d *disk) { copy(d.b, d.b[minHeader:2*minHeader]) }, "no LUKS signature"},
		{"padding", func(d *disk) { both(d.b, func(p []byte) { p[v2Padding] = 1 }) }, "padding"},
		{"cut in the binary part", func(d *disk) { d.b = d.b[:100] }, "unexpected EOF"},
		{"cut in the secondary", func(d *disk) { d.b = d.b[:minHeader+100] }, "unexpected EOF"},
		{"cut in a key area", func(d *disk) { d.b = d.b[:2*minHeader+100] }, "reading key slot 0"},
	} {
		d, _ := create(t, attached())
		tt.change(d)
		v, err := Open(context.Background(), d, passphrase, Expect{Layout: attached()})
		if v != nil || err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestOwnHeader: the opener is told the host's lie too, so that only the token can find it.
func TestOwnHeader(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*testing.T, *disk)
		lie    func(*Layout)
		want   string
	}{
		{"offset moved", func(t *testing.T, d *disk) { rewrite(t, d.b, swap(`"offset":"1048576"`, `"offset":"1052672"`)) },
			func(l *Layout) { l.Offset = 1052672 }, "does not match"},
		{"sector size", func(t *testing.T, d *disk) { rewrite(t, d.b, swap(`"sector_size":4096`, `"sector_size":512`)) },
			func(l *Layout) { l.SectorSize = 512 }, "does not match"},
		{"size set", func(t *testing.T, d *disk) { rewrite(t, d.b, swap(`"size":"dynamic"`, `"size":"4096"`)) },
			func(l *Layout) { l.Size = 4096 }, "does not match"},
		{"UUID", func(_ *testing.T, d *disk) { both(d.b, func(p []byte) { copy(p[v2UUID:], "0001") }) },
			func(*Layout) {}, "does not match"},
		{"hmac", func(t *testing.T, d *disk) { rewrite(t, d.b, swap(`"hmac":"`, `"hmac":"AAAA`)) },
			func(*Layout) {}, "hmac of 35 bytes"},
		{"token dropped", func(t *testing.T, d *disk) { rewrite(t, d.b, swap(`"type":"casemate-header"`, `"type":"other"`)) },
			func(*Layout) {}, "no token"},
	} {
		l := attached()
		d, _ := create(t, l)
		tt.change(t, d)
		tt.lie(&l)
		if _, err := Open(context.Background(), d, passphrase, Expect{Layout: l, OwnHeader: true}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		// Without OwnHeader a token that is there must hold nevertheless.
		_, err := Open(context.Background(), d, passphrase, Expect{Layout: l})
		if (err == nil) != (tt.name == "token dropped") {
			t.Errorf("%s, token not asked for: %v", tt.name, err)
		}
	}
}

// Of two slots whose areas share bytes, neither is used.
func TestOverlappingAreas(t *testing.T) {
	for _, second := range []string{"32768", "36864", "286720"} { // the first ends at 290816
		d, _ := create(t, attached())
		rewrite(t, d.b, func(s string) string {
			from, to := strings.Index(s, `"0":{`)+4, strings.Index(s, `},"tokens"`)
			if strings.Index(s, `"keyslots"`) > from {
				t.Fatal("key slots are not first")
			}
			one := s[from:to]
			return s[:to] + `,"1":` + strings.Replace(one, `"offset":"32768"`, `"offset":"`+second+`"`, 1) + strings.Replace(s[to:], `"keyslots":["0"],"segments"`, `"keyslots":["0","1"],"segments"`, 1)
		})
		if _, err := Open(context.Background(), d, passphrase, Expect{Layout: attached()}); err == nil || !strings.Contains(err.Error(), "overlaps") {
			t.Errorf("%s: %v", second, err)
		}
	}
}

// FuzzOpenHeader gives the parser metadata under right checksums, and raw bytes.
func FuzzOpenHeader(f *testing.F) {
	d, _ := create(f, attached())
	text, _, _ := bytes.Cut(d.b[binarySize:minHeader], []byte{0})
	f.Add(d.b[:v2End], text, false)
	f.Add(header1("aes", "xts-plain64", "sha256"), []byte(nil), true)
	f.Fuzz(func(t *testing.T, first, text []byte, detached bool) {
		if len(first) > binarySize || len(text) > minHeader-binarySize {
			return
		}
		b := make([]byte, 2*minHeader)
		for i, magic := range []string{magicPrimary, magicSecondary} {
			at := i * minHeader
			part := b[at : at+minHeader]
			copy(part, first)
			copy(part, magic)
			copy(part[binarySize:], text)
			if binary.BigEndian.Uint16(part[6:]) == 2 {
				put64(v2Offset, uint64(at))(part)
				reseal(part)
			}
		}
		h, err := readHeader(bytes.NewReader(b), detached)
		if err != nil {
			return
		}
		if err := h.Layout.check(); err != nil {
			t.Errorf("accepted %+v: %v", h.Layout, err)
		}
		for _, s := range h.slots {
			if s.offset > maxOffset || s.keySize != h.keySize || s.kdf.Memory > maxMemoryKiB || s.kdf.Iterations > maxIterations {
				t.Errorf("accepted slot %+v", s)
			}
		}
	})
}
