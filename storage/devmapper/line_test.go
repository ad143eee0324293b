// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"bytes"
	"strings"
	"testing"
)

func tableLine(t Target) (string, error) {
	l := line{buf: make([]byte, 4096)}
	t.params(&l)
	return string(l.buf[:l.n]), l.err
}

func seq(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// TestTableLines pins the lines against the kernel's documentation of each target.
func TestTableLines(t *testing.T) {
	const key64 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
	const key96 = key64 + "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
	root := bytes.Repeat([]byte{0xab}, 32)
	for _, tt := range []struct {
		name   string
		target Target
		kind   string
		want   string
	}{
		{"linear", Linear{LengthSectors: 8, Device: "/dev/vda", OffsetSectors: 2048}, "linear", "/dev/vda 2048"},
		{"crypt", Crypt{LengthSectors: 8, Cipher: AESXTS, Key: seq(64), Device: "/dev/vdb", SectorSize: 512},
			"crypt", "aes-xts-plain64 " + key64 + " 0 /dev/vdb 0"},
		{"crypt with everything", Crypt{LengthSectors: 16, Cipher: AESXTS, Key: seq(64), Device: "/dev/vdb", OffsetSectors: 32768,
			IVOffsetSectors: 7, SectorSize: 4096, AllowDiscards: true, NoWorkqueues: true},
			"crypt", "aes-xts-plain64 " + key64 + " 7 /dev/vdb 32768 4 allow_discards no_read_workqueue no_write_workqueue sector_size:4096"},
		{"crypt with a tag", Crypt{LengthSectors: 8, Cipher: AESXTSHMACSHA256, Key: seq(96), Device: "/dev/mapper/i", SectorSize: 4096},
			"crypt", "capi:authenc(hmac(sha256),xts(aes))-plain64 " + key96 + " 0 /dev/mapper/i 0 2 sector_size:4096 integrity:32:aead"},
		{"crypt with AEGIS", Crypt{LengthSectors: 8, Cipher: AEGIS128, Key: seq(16), Device: "/dev/mapper/i", SectorSize: 4096, NoWorkqueues: true},
			"crypt", "capi:aegis128-random " + key64[:32] + " 0 /dev/mapper/i 0 4 no_read_workqueue no_write_workqueue sector_size:4096 integrity:32:aead"},
		{"integrity for a tag", Integrity{LengthSectors: 8, Device: "/dev/vdc", BlockSize: 4096, TagSize: 32},
			"integrity", "/dev/vdc 0 32 D 3 block_size:4096 fix_padding journal_sectors:1"},
		{"integrity with a key", Integrity{LengthSectors: 8, Device: "/dev/vdc", OffsetSectors: 16, BlockSize: 512, Key: seq(32), Journal: true},
			"integrity", "/dev/vdc 16 - J 4 block_size:512 fix_padding fix_hmac internal_hash:hmac(sha256):" + key64[:64]},
		{"verity", Verity{HashType: 1, DataDevice: "/dev/vda1", HashDevice: "/dev/vda2", DataBlockSize: 4096, HashBlockSize: 4096,
			DataBlocks: 6000, HashStartBlock: 1, Algorithm: "sha256", RootHash: root, Salt: []byte{1, 2}},
			"verity", "1 /dev/vda1 /dev/vda2 4096 4096 6000 1 sha256 " + strings.Repeat("ab", 32) + " 0102"},
		{"verity without salt", Verity{DataDevice: "/dev/vda", HashDevice: "/dev/vda", DataBlockSize: 1024, HashBlockSize: 512,
			DataBlocks: 1, HashStartBlock: 9, Algorithm: "sha512", RootHash: seq(64)},
			"verity", "0 /dev/vda /dev/vda 1024 512 1 9 sha512 " + key64 + " -"},
		{"verity with parity", Verity{HashType: 1, DataDevice: "/dev/vda", HashDevice: "/dev/vdb", DataBlockSize: 4096, HashBlockSize: 4096,
			DataBlocks: 100, HashStartBlock: 1, Algorithm: "sha256", RootHash: root, FEC: &VerityFEC{Device: "/dev/vdc", StartBlock: 3, Blocks: 102, Roots: 2}},
			"verity", "1 /dev/vda /dev/vdb 4096 4096 100 1 sha256 " + strings.Repeat("ab", 32) + " - 8 use_fec_from_device /dev/vdc fec_start 3 fec_blocks 102 fec_roots 2"},
		{"verity with parity and a signature", Verity{HashType: 1, DataDevice: "/dev/vda", HashDevice: "/dev/vdb", DataBlockSize: 4096, HashBlockSize: 4096,
			DataBlocks: 100, HashStartBlock: 1, Algorithm: "sha256", RootHash: root, FEC: &VerityFEC{Device: "/dev/vdc", Blocks: 102, Roots: 24}, Signature: []byte("abc")},
			"verity", "1 /dev/vda /dev/vdb 4096 4096 100 1 sha256 " + strings.Repeat("ab", 32) + " - 10 use_fec_from_device /dev/vdc fec_start 0 fec_blocks 102 fec_roots 24 " +
				"root_hash_sig_key_desc casemate-verity-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tableLine(tt.target)
			if err != nil || got != tt.want || tt.target.kind() != tt.kind {
				t.Errorf("%v\n got %s %s\nwant %s %s", err, tt.target.kind(), got, tt.kind, tt.want)
			}
		})
	}
}

// TestTablesThatGiveIntegrityAway: none of the words that weaken a table can come out of any target.
func TestTablesThatGiveIntegrityAway(t *testing.T) {
	for _, target := range []Target{
		Integrity{LengthSectors: 8, Device: "/dev/a", BlockSize: 4096, Key: seq(32)},
		Integrity{LengthSectors: 8, Device: "/dev/a", BlockSize: 4096, TagSize: 32, Journal: true},
		Crypt{LengthSectors: 8, Cipher: AESXTSHMACSHA256, Key: seq(96), Device: "/dev/a", SectorSize: 4096, NoWorkqueues: true},
		Crypt{LengthSectors: 8, Cipher: AEGIS128, Key: seq(16), Device: "/dev/a", SectorSize: 4096},
		Verity{HashType: 1, DataDevice: "/dev/a", HashDevice: "/dev/a", DataBlockSize: 4096, HashBlockSize: 4096, DataBlocks: 1, Algorithm: "sha256", RootHash: seq(32)},
	} {
		got, err := tableLine(target)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"allow_discards", "recalculate", "legacy_recalculate", " B ", " R ", "ignore_", "check_at_most_once"} {
			if strings.Contains(got, word) {
				t.Errorf("%s contains %q", got, word)
			}
		}
	}
}

func TestRefusedTargets(t *testing.T) {
	crypt := Crypt{LengthSectors: 8, Cipher: AESXTS, Key: seq(64), Device: "/dev/vdb", SectorSize: 512}
	integrity := Integrity{LengthSectors: 8, Device: "/dev/vdb", BlockSize: 4096, TagSize: 32}
	verity := Verity{HashType: 1, DataDevice: "/dev/a", HashDevice: "/dev/b", DataBlockSize: 4096, HashBlockSize: 4096, DataBlocks: 1, Algorithm: "sha256", RootHash: seq(32)}
	refused := map[string]Target{}
	for name, device := range map[string]string{
		"second target by a newline": "/dev/vdb 0\n0 8 zero", "options behind the device": "/dev/vdb 0 1 allow_discards",
		"tab": "/dev/vdb\t0", "backslash": `/dev/vdb\ `, "NUL": "/dev/vdb\x00", "relative": "dev/vdb", "dots": "/dev/../etc/x",
		"empty": "", "number": "8:0", "not ASCII": "/dev/vdé",
	} {
		c := crypt
		c.Device = device
		refused["device, "+name] = c
	}
	add := func(name string, change func(c *Crypt, i *Integrity, v *Verity) Target) {
		c, i, v := crypt, integrity, verity
		refused[name] = change(&c, &i, &v)
	}
	add("short key", func(c *Crypt, _ *Integrity, _ *Verity) Target { c.Key = seq(32); return *c })
	add("no key", func(c *Crypt, _ *Integrity, _ *Verity) Target { c.Key = nil; return *c })
	add("no cipher", func(c *Crypt, _ *Integrity, _ *Verity) Target { c.Cipher = 0; return *c })
	add("unknown cipher", func(c *Crypt, _ *Integrity, _ *Verity) Target { c.Cipher = 99; return *c })
	add("sector size 0", func(c *Crypt, _ *Integrity, _ *Verity) Target { c.SectorSize = 0; return *c })
	add("sector size 1024", func(c *Crypt, _ *Integrity, _ *Verity) Target { c.SectorSize = 1024; return *c })
	add("length off the sector size", func(c *Crypt, _ *Integrity, _ *Verity) Target {
		c.SectorSize, c.LengthSectors = 4096, 9
		return *c
	})
	add("discards with a tag", func(c *Crypt, _ *Integrity, _ *Verity) Target {
		c.Cipher, c.Key, c.AllowDiscards = AESXTSHMACSHA256, seq(96), true
		return *c
	})
	add("neither key nor tag", func(_ *Crypt, i *Integrity, _ *Verity) Target { i.TagSize = 0; return *i })
	add("key and tag", func(_ *Crypt, i *Integrity, _ *Verity) Target { i.Key = seq(32); return *i })
	add("short HMAC key", func(_ *Crypt, i *Integrity, _ *Verity) Target { i.TagSize, i.Key = 0, seq(16); return *i })
	add("empty HMAC key", func(_ *Crypt, i *Integrity, _ *Verity) Target { i.TagSize, i.Key = 0, []byte{}; return *i })
	add("block size 8192", func(_ *Crypt, i *Integrity, _ *Verity) Target { i.BlockSize = 8192; return *i })
	add("negative tag", func(_ *Crypt, i *Integrity, _ *Verity) Target { i.TagSize = -1; return *i })
	add("root hash of another length", func(_ *Crypt, _ *Integrity, v *Verity) Target { v.RootHash = seq(20); return *v })
	add("no root hash", func(_ *Crypt, _ *Integrity, v *Verity) Target { v.RootHash = nil; return *v })
	add("weak algorithm", func(_ *Crypt, _ *Integrity, v *Verity) Target { v.Algorithm = "sha1"; return *v })
	add("long salt", func(_ *Crypt, _ *Integrity, v *Verity) Target { v.Salt = seq(257); return *v })
	add("hash type 2", func(_ *Crypt, _ *Integrity, v *Verity) Target { v.HashType = 2; return *v })
	add("data block size 4095", func(_ *Crypt, _ *Integrity, v *Verity) Target { v.DataBlockSize = 4095; return *v })
	fec := func(change func(v *Verity)) func(*Crypt, *Integrity, *Verity) Target {
		return func(_ *Crypt, _ *Integrity, v *Verity) Target {
			v.FEC = &VerityFEC{Device: "/dev/c", Blocks: 2, Roots: 2}
			change(v)
			return *v
		}
	}
	add("no parity", fec(func(v *Verity) { v.FEC.Roots = 0 }))
	add("one byte of parity", fec(func(v *Verity) { v.FEC.Roots = 1 }))
	add("25 bytes of parity", fec(func(v *Verity) { v.FEC.Roots = 25 }))
	add("parity on no device", fec(func(v *Verity) { v.FEC.Device = "" }))
	add("options behind the parity's device", fec(func(v *Verity) { v.FEC.Device = "/dev/c ignore_corruption" }))
	add("parity for less than the data", fec(func(v *Verity) { v.FEC.Blocks = 0 }))
	add("parity far out", fec(func(v *Verity) { v.FEC.StartBlock = 1 << 62 }))
	add("parity for two block sizes", fec(func(v *Verity) { v.HashBlockSize = 512 }))
	add("long signature", func(_ *Crypt, _ *Integrity, v *Verity) Target { v.Signature = make([]byte, 32768); return *v })
	add("overflowing length", func(_ *Crypt, _ *Integrity, v *Verity) Target { v.DataBlocks = 1 << 62; return *v })
	for name, target := range refused {
		if got, err := tableLine(target); err == nil {
			t.Errorf("%s: got %s", name, got)
		} else if strings.Contains(err.Error(), "000102") {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
}

func TestLineNeverLeavesItsBuffer(t *testing.T) {
	target := Crypt{LengthSectors: 8, Cipher: AESXTS, Key: seq(64), Device: "/dev/vdb", SectorSize: 512}
	whole, err := tableLine(target)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		backing := make([]byte, n+1)
		backing[n] = 0xee
		l := line{buf: backing[:n:n]}
		target.params(&l)
		if l.err == nil || l.n > n || backing[n] != 0xee {
			t.Fatalf("a buffer of %d bytes: n %d, err %v", n, l.n, l.err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"scratch": true, "a.b_c+d-e": true, strings.Repeat("a", 127): true,
		"": false, ".": false, "..": false, "-a": false, "a/b": false, "../x": false, "a b": false, "a\x00": false, strings.Repeat("a", 128): false,
	} {
		if err := checkName("name", name, nameMax); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
