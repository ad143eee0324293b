// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/verity"
)

// rootName is the mapping's name in /dev/mapper.
const rootName = "root"

// measuredRoot finds the root that the measured boot pins. Neither labels nor
// positions count, which the host writes: the tree's device is the one whose topmost
// block has the pinned hash, the data's the one that begins as the tree says.
type measuredRoot struct {
	pin        verity.Pin
	data, hash string // once found
}

func newMeasuredRoot(text string) (guest.Root, error) {
	pin, err := verity.ParsePin(text)
	if err != nil {
		return nil, err
	}
	return &measuredRoot{pin: pin}, nil
}

// enterRoot is the first half of a measured boot. It returns where no root is named,
// and parks when the named one cannot be entered: there is no network yet, so that the
// console alone says why.
func enterRoot(ctx context.Context) {
	console := guest.NewConsole(os.Stderr)
	err := guest.EnterRoot(newMeasuredRoot, func(s guest.Step) {
		console.Print("step", s.String())
	})
	if failed, ok := errors.AsType[*guest.StepError](err); ok {
		console.Print("failed", err.Error())
		console.Park(ctx, failed.Code(), "the measured root could not be entered")
	}
}

// Find picks the two devices. Two that hold the same are refused: which of them the
// host changes later would be its choice.
func (r *measuredRoot) Find(devices []string) (err error) {
	r.hash, err = onlyOne("hash tree", devices, func(f io.ReaderAt) error { return verity.CheckTop(f, r.pin) })
	if err != nil {
		return err
	}
	hash, err := os.Open(r.hash)
	if err != nil {
		return err
	}
	defer hash.Close()
	r.data, err = onlyOne("root", devices, func(f io.ReaderAt) error { return verity.CheckFirst(f, hash, r.pin) })
	return err
}

// onlyOne returns the one device that check accepts.
func onlyOne(what string, devices []string, check func(io.ReaderAt) error) (found string, err error) {
	for _, device := range devices {
		f, err := os.Open(device)
		if err != nil {
			continue // a drive without a medium
		}
		matches := check(f) == nil
		if err := f.Close(); err != nil {
			return "", err
		}
		switch {
		case !matches:
		case found != "":
			return "", fmt.Errorf("both %s and %s hold the %s", found, device, what)
		default:
			found = device
		}
	}
	if found == "" {
		return "", fmt.Errorf("%w: none of %d devices holds the %s", guest.ErrNoRoot, len(devices), what)
	}
	return found, nil
}

// Map makes the verified device.
func (r *measuredRoot) Map() (string, error) {
	control, err := devmapper.Open()
	if err != nil {
		return "", err
	}
	defer control.Close()
	device, err := control.Create(devmapper.Mapping{Name: rootName, ReadOnly: true, Targets: []devmapper.Target{verityTarget(r.pin, r.data, r.hash)}})
	return device.Path, err
}

// verityTarget is the table of a pin over two devices.
func verityTarget(pin verity.Pin, data, hash string) devmapper.Verity {
	return devmapper.Verity{
		HashType: pin.HashType, DataDevice: data, HashDevice: hash, DataBlockSize: pin.DataBlockSize, HashBlockSize: pin.HashBlockSize,
		DataBlocks: pin.DataBlocks, HashStartBlock: pin.HashOffset / uint64(pin.HashBlockSize),
		Algorithm: pin.Algorithm, RootHash: pin.RootHash, Salt: pin.Salt,
	}
}
