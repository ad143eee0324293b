// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/casemate/casemate/storage/luks"
)

// Generation is one state of a volume with a counter. Numbers grow. The random id tells apart what two guests write on
// two copies of one disk: both reach the same number, and only one of them is the volume from then on.
type Generation struct {
	Number uint64
	ID     [16]byte
}

// Records of generations lie in the last luks.RecordsSize bytes before a volume's data, recordSlots of them, each alone
// in recordUnit bytes so that a write torn by a loss of power spoils no other:
//
//	0   magic "CMGENER1"
//	8   number, big-endian
//	16  id
//	32  HMAC-SHA-256 of the volume's UUID as text and bytes 0 to 31; its key is 32 bytes of HKDF-SHA-256 of the
//	    volume key, without salt, with generationInfo
//
// What does not verify is no record: the host writes here what it likes.
const (
	generationMagic = "CMGENER1"
	generationInfo  = "casemate volume generation v1"
	recordSlots     = 16
	recordUnit      = luks.RecordsSize / recordSlots
	recordBody      = 32
	recordSize      = recordBody + sha256.Size
)

// recordDisk is a disk as records need it; an *os.File is one.
type recordDisk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// records are those of one volume. Its owner calls close, which clears the key.
type records struct {
	at   int64 // of the first slot on the device, in bytes
	uuid string
	key  []byte
}

func newRecords(v *luks.Volume) (*records, error) {
	key, err := hkdf.Key(sha256.New, v.Key, nil, generationInfo, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of the generation: %w", err)
	}
	return &records{at: int64(v.Offset) - luks.RecordsSize, uuid: v.UUID, key: key}, nil //nolint:gosec // the layout is checked
}

func (r *records) close() { clear(r.key) }

func (r *records) mac(body []byte) []byte {
	m := hmac.New(sha256.New, r.key)
	io.WriteString(m, r.uuid) //nolint:errcheck // a hash takes everything
	m.Write(body)
	return m.Sum(nil)
}

func (r *records) encode(g Generation) []byte {
	b := binary.BigEndian.AppendUint64([]byte(generationMagic), g.Number)
	b = append(b, g.ID[:]...)
	return append(b, r.mac(b)...)
}

// read returns the generations by slot; where a slot has no record the number is 0.
func (r *records) read(disk io.ReaderAt) ([recordSlots]Generation, error) {
	var all [recordSlots]Generation
	b := make([]byte, luks.RecordsSize)
	if n, err := disk.ReadAt(b, r.at); n < len(b) {
		return all, fmt.Errorf("reading the generations: %d bytes of %d: %w", n, len(b), err)
	}
	for i := range all {
		record := b[i*recordUnit:][:recordSize]
		body := record[:recordBody]
		if !bytes.HasPrefix(body, []byte(generationMagic)) || !hmac.Equal(record[recordBody:], r.mac(body)) {
			continue
		}
		all[i].Number = binary.BigEndian.Uint64(body[len(generationMagic):])
		copy(all[i].ID[:], body[16:])
	}
	return all, nil
}

// write puts a generation into a slot and waits until it is on the disk.
func (r *records) write(disk recordDisk, slot int, g Generation) error {
	b := make([]byte, recordUnit)
	copy(b, r.encode(g))
	if _, err := disk.WriteAt(b, r.at+int64(slot)*recordUnit); err != nil {
		return fmt.Errorf("writing generation %d: %w", g.Number, err)
	}
	if err := disk.Sync(); err != nil {
		return fmt.Errorf("writing generation %d: %w", g.Number, err)
	}
	return nil
}

// spare chooses a slot that does not hold last, by chance: two guests that write at the same time are not to hit the
// same. Where the host has copied last into all of them any will do.
func spare(all [recordSlots]Generation, last Generation) int {
	var free []int
	for slot, g := range all {
		if g != last || last.Number == 0 {
			free = append(free, slot)
		}
	}
	var b [1]byte
	rand.Read(b[:]) // never fails
	if len(free) == 0 {
		return int(b[0]) % recordSlots
	}
	return free[int(b[0])%len(free)]
}
