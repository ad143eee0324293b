// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/casemate/casemate/verity"
)

type verityFormat struct {
	streams
	params       verity.Params
	salt, uuid   string
	noSuperblock bool
	asJSON       bool
}

// verityResult is what a guest pins.
type verityResult struct {
	RootHash string `json:"root_hash"`
	// Pin is the whole tuple on one line, as casemate verity takes it.
	Pin string `json:"pin"`
	// KernelParams is kata's kernel_verity_params, empty where that form cannot say
	// the pin.
	KernelParams string `json:"kernel_verity_params,omitempty"`
}

func newVerity(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "verity COMMAND", Short: "Make dm-verity hash trees", Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error { return usagef("want format, got %q", args) },
	}
	c.AddCommand(newVerityFormat(s))
	return c
}

func newVerityFormat(s streams) *cobra.Command {
	f := &verityFormat{streams: s}
	c := &cobra.Command{
		Use:   "format DATA HASH",
		Short: "Write the hash tree of DATA to HASH and print what pins it",
		Long: `Write the dm-verity hash tree over all of DATA, a file or block device, to HASH,
a new file or a block device, as veritysetup does, and print the root hash and the
pin: the whole tuple that a guest compares. With --salt and --uuid given, the same
DATA always gives the same bytes.`,
		Args: exactly("DATA", "HASH"),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0], args[1]) },
	}
	c.Flags().StringVar(&f.params.Algorithm, "algorithm", "sha256", "sha256, sha384 or sha512")
	c.Flags().IntVar(&f.params.HashType, "hash-type", 1, "1, or 0 for the original format")
	c.Flags().IntVar(&f.params.DataBlockSize, "data-block-size", 4096, "`BYTES`, a power of two from 512 to 4096")
	c.Flags().IntVar(&f.params.HashBlockSize, "hash-block-size", 4096, "the same")
	c.Flags().StringVar(&f.salt, "salt", "", "`HEX`, - for none; 32 random bytes unless given")
	c.Flags().StringVar(&f.uuid, "uuid", "", "`UUID` in the superblock; random unless given")
	c.Flags().BoolVar(&f.noSuperblock, "no-superblock", false, "write the tree alone, as kata's images have it")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return c
}

func (f *verityFormat) run(c *cobra.Command, dataName, hashName string) (err error) {
	data, size, err := openData(dataName)
	if err != nil {
		return err
	}
	defer data.Close()
	superblock, err := f.complete(size)
	if err != nil {
		return err
	}
	hash, err := openHash(hashName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hash.Close()) }()
	root, err := verity.Build(c.Context(), data, hash, f.params)
	if err != nil {
		return err
	}
	// Last: a tree that was cut short has no superblock.
	if superblock != nil {
		if _, err := hash.WriteAt(superblock, 0); err != nil {
			return fmt.Errorf("writing the superblock: %w", err)
		}
	}
	if err := hash.Sync(); err != nil {
		return fmt.Errorf("writing %s: %w", hashName, err)
	}
	return f.print(verity.Pin{Params: f.params, RootHash: root})
}

// complete fills the parameters for data of the given size and returns the
// superblock, nil when none is wanted.
func (f *verityFormat) complete(size int64) ([]byte, error) {
	p := &f.params
	p.DataBlocks = 1 // until the block size is known to be one
	if err := p.Validate(); err != nil {
		return nil, usagef("%w", err)
	}
	if size == 0 || size%int64(p.DataBlockSize) != 0 {
		return nil, fmt.Errorf("the data has %d bytes: want a multiple of the block size %d", size, p.DataBlockSize)
	}
	p.DataBlocks = uint64(size / int64(p.DataBlockSize))
	var err error
	switch f.salt {
	case "":
		p.Salt = make([]byte, 32)
		_, _ = rand.Read(p.Salt) // never fails
	case "-":
	default:
		if p.Salt, err = hex.DecodeString(f.salt); err != nil {
			return nil, usagef("--salt: want hexadecimal digits or -, got %q", f.salt)
		}
	}
	if f.noSuperblock {
		if f.uuid != "" {
			return nil, usagef("--uuid has no place without a superblock")
		}
		return nil, p.Validate()
	}
	p.HashOffset = verity.TreeOffset(p.HashBlockSize)
	id := uuid.New()
	if f.uuid != "" {
		if id, err = uuid.Parse(f.uuid); err != nil || len(f.uuid) != 36 {
			return nil, usagef("--uuid: want 8-4-4-4-12 hexadecimal digits, got %q", f.uuid)
		}
	}
	return verity.Superblock{UUID: id, Params: *p}.Encode()
}

func (f *verityFormat) print(pin verity.Pin) error {
	result := verityResult{RootHash: hex.EncodeToString(pin.RootHash), Pin: pin.Text()}
	if text, err := pin.KernelParams(); err == nil {
		result.KernelParams = text
	}
	if f.asJSON {
		return printJSON(f.out, result)
	}
	_, err := fmt.Fprintf(f.out, "root hash  %s\npin        %s\n", result.RootHash, result.Pin)
	return err
}

// openData opens a file or block device and finds its size.
func openData(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("finding the size of %s: %w", name, err), f.Close())
	}
	return f, size, nil
}

// openHash opens a block device or makes a file, which must not be there or be
// empty: what is overwritten by a slip of two names is gone.
func openHash(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, publicFileMode)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		err = fmt.Errorf("%s has %d bytes: want a new file, an empty one or a block device", strings.TrimSpace(name), info.Size())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
