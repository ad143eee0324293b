// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// maxKernelParams caps the text: two hex strings and three numbers.
const maxKernelParams = 2048

// KernelParams writes the pin as kata's kernel_verity_params have it: one line of
// root_hash, salt, data_blocks, data_block_size and hash_block_size. What the form
// has no word for, it implies: sha256, hash type 1, a tree at the start of a hash
// device without superblock; another pin is an error.
func (p Pin) KernelParams() (string, error) {
	if err := p.Validate(); err != nil {
		return "", err
	}
	if p.Algorithm != "sha256" || p.HashType != 1 || p.HashOffset != 0 {
		return "", fmt.Errorf("kernel verity params: want sha256, hash type 1 and offset 0, got %s, %d and %d", p.Algorithm, p.HashType, p.HashOffset)
	}
	return fmt.Sprintf("root_hash=%x,salt=%x,data_blocks=%d,data_block_size=%d,hash_block_size=%d",
		p.RootHash, p.Salt, p.DataBlocks, p.DataBlockSize, p.HashBlockSize), nil
}

// ParseKernelParams reads kata's kernel_verity_params: every key once, no other.
func ParseKernelParams(text string) (Pin, error) {
	var pin Pin
	if len(text) > maxKernelParams {
		return pin, fmt.Errorf("kernel verity params of %d bytes: want at most %d", len(text), maxKernelParams)
	}
	values := map[string]string{}
	for _, field := range strings.Split(strings.TrimSuffix(text, "\n"), ",") {
		key, value, ok := strings.Cut(field, "=")
		if _, twice := values[key]; !ok || twice {
			return pin, fmt.Errorf("kernel verity params: field %.80q: want each KEY=VALUE once", field)
		}
		values[key] = value
	}
	pin.HashType, pin.Algorithm = 1, "sha256"
	var err error
	number := func(key string, bits int) uint64 {
		n, e := strconv.ParseUint(values[key], 10, bits)
		if e != nil && err == nil {
			err = fmt.Errorf("kernel verity params: %s: want a number, got %.80q", key, values[key])
		}
		delete(values, key)
		return n
	}
	octets := func(key string) []byte {
		b, e := hex.DecodeString(values[key])
		if _, there := values[key]; (e != nil || !there) && err == nil {
			err = fmt.Errorf("kernel verity params: %s: want hexadecimal digits, got %.80q", key, values[key])
		}
		delete(values, key)
		return b
	}
	pin.RootHash, pin.Salt = octets("root_hash"), octets("salt")
	pin.DataBlocks = number("data_blocks", 64)
	pin.DataBlockSize, pin.HashBlockSize = int(number("data_block_size", 31)), int(number("hash_block_size", 31))
	if err != nil {
		return Pin{}, err
	}
	for key := range values {
		return Pin{}, fmt.Errorf("kernel verity params: unknown key %.80q", key)
	}
	if err := pin.Validate(); err != nil {
		return Pin{}, fmt.Errorf("kernel verity params: %w", err)
	}
	return pin, nil
}
