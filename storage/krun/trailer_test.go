// SPDX-License-Identifier: Apache-2.0

package krun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

const object1 = `{"tee":"snp","tee_data":"{\"gen\":\"milan\"}","workload_id":"w-1","cpus":2,"ram_mib":512,"attestation_url":"http://kbs.example:8000"}`

// disk ends with an object, with its length or another.
func disk(object string, length uint64) []byte {
	b := append(make([]byte, 4096), object...)
	return binary.LittleEndian.AppendUint64(append(b, magic...), length)
}

func TestReadTrailer(t *testing.T) {
	raw := disk(object1, uint64(len(object1)))
	got, err := ReadTrailer(bytes.NewReader(raw), int64(len(raw)))
	if want := (Trailer{"snp", `{"gen":"milan"}`, "w-1", 2, 512, "http://kbs.example:8000"}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestHostileTrailers: what a host may write at the end of its disk.
func TestHostileTrailers(t *testing.T) {
	edit := func(old, new string) []byte {
		o := strings.Replace(object1, old, new, 1)
		return disk(o, uint64(len(o)))
	}
	for name, tt := range map[string]struct {
		raw  []byte
		want string
	}{
		"empty device":          {nil, ErrNoTrailer.Error()},
		"short device":          {[]byte("KRUN"), ErrNoTrailer.Error()},
		"no magic":              {make([]byte, 8192), ErrNoTrailer.Error()},
		"length 0":              {disk(object1, 0), "want 1 to"},
		"length of everything":  {disk(object1, 1<<63), "want 1 to"},
		"length over the start": {disk(object1, 5000), "want 1 to"},
		"length over the cap":   {disk(object1, maxObject+1), "want 1 to"},
		"a length too long":     {disk(object1, uint64(len(object1))+1), "invalid character"},
		"a length too short":    {disk(object1, uint64(len(object1))-1), ""},
		"two objects":           {disk(object1+object1, uint64(2*len(object1))), ""},
		"no workload id":        {edit(`"workload_id":"w-1",`, ""), "want tee, tee_data"},
		"empty workload id":     {edit("w-1", ""), "workload_id of 0"},
		"long workload id":      {edit("w-1", strings.Repeat("w", maxID+1)), "workload_id of 1025"},
		"two workload ids":      {edit(`"cpus"`, `"workload_id":"w-2","cpus"`), "duplicate"},
		"another spelling":      {edit(`"workload_id"`, `"Workload_ID"`), "unknown"},
		"an unknown member":     {edit(`"cpus"`, `"init":"/bin/sh","cpus"`), "unknown"},
		"null":                  {edit(`"w-1"`, "null"), "want tee, tee_data"},
		"another TEE":           {edit(`"snp"`, `"none"`), `tee "none"`},
		"no processors":         {edit(`"cpus":2`, `"cpus":0`), "cpus 0"},
		"negative memory":       {edit("512", "-512"), "ram_mib -512"},
		"no object":             {disk("[]", 2), ""},
	} {
		got, err := ReadTrailer(bytes.NewReader(tt.raw), int64(len(tt.raw)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v, %v, want %q", name, got, err, tt.want)
		}
	}
	// A device that has shrunk since its size was read.
	raw := disk(object1, uint64(len(object1)))
	if _, err := ReadTrailer(bytes.NewReader(raw[:100]), int64(len(raw))); err == nil || errors.Is(err, ErrNoTrailer) {
		t.Errorf("a device that shrinks: %v", err)
	}
}

func FuzzReadTrailer(f *testing.F) {
	f.Add(disk(object1, uint64(len(object1))))
	f.Add([]byte("KRUN\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := ReadTrailer(bytes.NewReader(raw), int64(len(raw)))
		if err == nil && (got.WorkloadID == "" || got.CPUs < 1 || got.TEE == "") {
			t.Errorf("accepted %+v", got)
		}
	})
}
