// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// maxPinText caps a pin's text: two hex strings and a few numbers.
const maxPinText = 2048

// What a pin's text means where it says nothing, as kata's kernel_verity_params,
// which have no words for these three.
const (
	impliedAlgorithm = "sha256"
	impliedHashType  = 1
)

// Text writes the pin on one line: root_hash, salt, data_blocks, data_block_size and
// hash_block_size as in kata's kernel_verity_params, and algorithm, hash_type and
// hash_offset where they are not sha256, 1 and 0.
func (p Pin) Text() string {
	text := fmt.Sprintf("root_hash=%x,salt=%x,data_blocks=%d,data_block_size=%d,hash_block_size=%d",
		p.RootHash, p.Salt, p.DataBlocks, p.DataBlockSize, p.HashBlockSize)
	if p.Algorithm != impliedAlgorithm {
		text += ",algorithm=" + p.Algorithm
	}
	if p.HashType != impliedHashType {
		text += fmt.Sprintf(",hash_type=%d", p.HashType)
	}
	if p.HashOffset != 0 {
		text += fmt.Sprintf(",hash_offset=%d", p.HashOffset)
	}
	return text
}

// KernelParams is Text for a pin that kata's kernel_verity_params can say; for
// another it is an error.
func (p Pin) KernelParams() (string, error) {
	if err := p.Validate(); err != nil {
		return "", err
	}
	if p.Algorithm != impliedAlgorithm || p.HashType != impliedHashType || p.HashOffset != 0 {
		return "", fmt.Errorf("kernel verity params: want sha256, hash type 1 and offset 0, got %s, %d and %d", p.Algorithm, p.HashType, p.HashOffset)
	}
	return p.Text(), nil
}

// ParsePin reads what Text writes: the five keys once each, the other three at most
// once, and nothing else.
func ParsePin(text string) (Pin, error) {
	if len(text) > maxPinText {
		return Pin{}, fmt.Errorf("verity pin of %d bytes: want at most %d", len(text), maxPinText)
	}
	fields := pinFields{values: map[string]string{
		"algorithm": impliedAlgorithm, "hash_type": strconv.Itoa(impliedHashType), "hash_offset": "0",
	}}
	said := map[string]bool{}
	for _, field := range strings.Split(strings.TrimSuffix(text, "\n"), ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok || said[key] {
			return Pin{}, fmt.Errorf("verity pin: field %.80q: want each KEY=VALUE once", field)
		}
		said[key] = true
		fields.values[key] = value
	}
	pin := Pin{RootHash: fields.octets("root_hash")}
	pin.Salt, pin.DataBlocks = fields.octets("salt"), fields.number("data_blocks", 64)
	pin.DataBlockSize, pin.HashBlockSize = int(fields.number("data_block_size", 31)), int(fields.number("hash_block_size", 31))
	pin.Algorithm, pin.HashType, pin.HashOffset = fields.take("algorithm"), int(fields.number("hash_type", 31)), fields.number("hash_offset", 64)
	for key := range fields.values {
		return Pin{}, fmt.Errorf("verity pin: unknown key %.80q", key)
	}
	if fields.err != nil {
		return Pin{}, fields.err
	}
	if err := pin.Validate(); err != nil {
		return Pin{}, fmt.Errorf("verity pin: %w", err)
	}
	return pin, nil
}

// pinFields hands out values once each and keeps the first error.
type pinFields struct {
	values map[string]string
	err    error
}

func (f *pinFields) take(key string) string {
	value, ok := f.values[key]
	if !ok && f.err == nil {
		f.err = fmt.Errorf("verity pin: %s is missing", key)
	}
	delete(f.values, key)
	return value
}

func (f *pinFields) number(key string, bits int) uint64 {
	text := f.take(key)
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("verity pin: %s: want a number, got %.80q", key, text)
	}
	return n
}

func (f *pinFields) octets(key string) []byte {
	text := f.take(key)
	b, err := hex.DecodeString(text)
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("verity pin: %s: want hexadecimal digits, got %.80q", key, text)
	}
	return b
}
