// SPDX-License-Identifier: Apache-2.0

package krun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
)

const (
	magic     = "KRUN"
	endSize   = len(magic) + 8
	maxObject = 1 << 20 // as buildah's own reader
	maxID     = 1024    // of a workload id and of an address, in bytes
)

// Trailer is what the disk says of itself.
type Trailer struct {
	TEE            string // "snp" or "sev"
	TEEData        string // JSON text for libkrun; not read here
	WorkloadID     string
	CPUs           int
	RAMMiB         int
	AttestationURL string // of the relying party; may be empty
}

// ErrNoTrailer is wrapped when a device does not end as such a disk does.
var ErrNoTrailer = errors.New("the device does not end with KRUN and a length")

// object has a pointer for each member, all of which libkrun requires.
type object struct {
	TEE            *string `json:"tee"`
	TEEData        *string `json:"tee_data"`
	WorkloadID     *string `json:"workload_id"`
	CPUs           *int    `json:"cpus"`
	RAMMiB         *int    `json:"ram_mib"`
	AttestationURL *string `json:"attestation_url"`
}

// ReadTrailer reads the end of a disk of size bytes.
func ReadTrailer(disk io.ReaderAt, size int64) (Trailer, error) {
	t, err := readTrailer(disk, size)
	if err != nil {
		return Trailer{}, fmt.Errorf("reading the disk's trailer: %w", err)
	}
	return t, nil
}

func readTrailer(disk io.ReaderAt, size int64) (Trailer, error) {
	end := make([]byte, endSize)
	if size < int64(endSize) {
		return Trailer{}, ErrNoTrailer
	}
	if n, err := disk.ReadAt(end, size-int64(endSize)); n < endSize {
		return Trailer{}, err
	}
	if string(end[:len(magic)]) != magic {
		return Trailer{}, ErrNoTrailer
	}
	length := binary.LittleEndian.Uint64(end[len(magic):])
	if length == 0 || length > maxObject || int64(length) > size-int64(endSize) {
		return Trailer{}, fmt.Errorf("an object of %d bytes on %d, want 1 to %d", length, size, maxObject)
	}
	raw := make([]byte, length)
	if n, err := disk.ReadAt(raw, size-int64(endSize)-int64(length)); n < len(raw) {
		return Trailer{}, err
	}
	return parse(raw)
}

// ParseObject reads the trailer's JSON object alone, as the file krun-sev.json has it,
// at most 1 MiB.
func ParseObject(raw []byte) (Trailer, error) {
	if len(raw) > maxObject {
		return Trailer{}, fmt.Errorf("parsing the disk's trailer: %d bytes, at most %d allowed", len(raw), maxObject)
	}
	t, err := parse(raw)
	if err != nil {
		return Trailer{}, fmt.Errorf("parsing the disk's trailer: %w", err)
	}
	return t, nil
}

func parse(raw []byte) (Trailer, error) {
	var o object
	if err := json.Unmarshal(raw, &o, json.RejectUnknownMembers(true)); err != nil {
		return Trailer{}, err
	}
	switch {
	case o.TEE == nil || o.TEEData == nil || o.WorkloadID == nil || o.CPUs == nil || o.RAMMiB == nil || o.AttestationURL == nil:
		return Trailer{}, errors.New("want tee, tee_data, workload_id, cpus, ram_mib and attestation_url")
	case *o.TEE != "snp" && *o.TEE != "sev":
		return Trailer{}, fmt.Errorf("tee %.16q, want snp or sev", *o.TEE)
	case *o.WorkloadID == "" || len(*o.WorkloadID) > maxID || len(*o.AttestationURL) > maxID:
		return Trailer{}, fmt.Errorf("workload_id of %d and attestation_url of %d bytes, want at most %d", len(*o.WorkloadID), len(*o.AttestationURL), maxID)
	case *o.CPUs < 1 || *o.RAMMiB < 1:
		return Trailer{}, fmt.Errorf("cpus %d and ram_mib %d, want at least 1", *o.CPUs, *o.RAMMiB)
	}
	return Trailer{*o.TEE, *o.TEEData, *o.WorkloadID, *o.CPUs, *o.RAMMiB, *o.AttestationURL}, nil
}

// Encode returns the last bytes of a disk with this trailer. What ReadTrailer would refuse is an error.
func Encode(t Trailer) ([]byte, error) {
	raw, err := Object(t)
	if err != nil {
		return nil, err
	}
	return binary.LittleEndian.AppendUint64(append(raw, magic...), uint64(len(raw))), nil
}

// Object returns the trailer's JSON object alone, which is also the file krun-sev.json of such an image.
func Object(t Trailer) ([]byte, error) {
	raw, err := json.Marshal(object{&t.TEE, &t.TEEData, &t.WorkloadID, &t.CPUs, &t.RAMMiB, &t.AttestationURL})
	if err == nil {
		_, err = parse(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding the disk's trailer: %w", err)
	}
	return raw, nil
}
