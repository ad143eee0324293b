// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/luks"
)

// sealedPrefix begins a sealed secret.
const sealedPrefix = "sealed."

// runVolume is casemate volume create|open|close.
func runVolume(ctx context.Context, args []string) error {
	return among(ctx, args, []verb{
		{"create", "NAME DEVICE", "make the volume, once: what is on the device is lost", withVolume(volumeCreate)},
		{"open", "NAME DEVICE", "map it", withVolume(volumeOpen)},
		{"close", "NAME [DEVICE]", "take the mapping away; with the device raise the counter at the relying party", volumeClose},
	})
}

// volumeVerb works on the volume that measured configuration names, on a device that anybody may name.
type volumeVerb func(context.Context, *machine, storage.Volumes, storage.VolumeConfig, string) error

// withVolume reads NAME and DEVICE and makes ready what a verb needs.
func withVolume(verb volumeVerb) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		o, rest, err := parseGuest(args, 2, 2, nil)
		if err != nil {
			return err
		}
		device, err := filepath.Abs(rest[1])
		if err != nil {
			return err
		}
		m, err := openGuest(ctx, o)
		if err != nil {
			return err
		}
		c, err := volumeConfig(m.conf, rest[0])
		if err != nil {
			return err
		}
		control, err := devmapper.Open()
		if err != nil {
			return err
		}
		keys, err := m.volumeKeys()
		if err == nil {
			err = verb(ctx, m, keys.volumes(control), c, device)
			keys.close()
		}
		return errors.Join(err, control.Close())
	}
}

// volumeCreate makes the file system that configuration names. Every block that is read before it is written has a
// valid tag then: without a file system these are all.
func volumeCreate(ctx context.Context, m *machine, v storage.Volumes, c storage.VolumeConfig, device string) error {
	f, err := volumeMaker(m.conf.Volumes[c.Name])
	if err != nil {
		return err
	}
	if terminal := m.steps.terminal(); terminal != nil {
		f = watched{f, drawFormat(terminal)}
	}
	return m.steps.do("create volume "+c.Name, func() error { return v.Create(ctx, c, device, f) })
}

func volumeOpen(ctx context.Context, m *machine, v storage.Volumes, c storage.VolumeConfig, device string) error {
	return m.steps.do("open volume "+c.Name, func() error {
		o, err := v.Open(ctx, c, device)
		if err != nil {
			return err
		}
		if _, err := fmt.Println(o.Path); err != nil {
			return errors.Join(err, o.Close())
		}
		return nil
	})
}

// volumeClose needs no configuration: it takes away and gives nothing. With the device it also raises the counter that
// the relying party keeps, for which it attests and reads the volume's key.
func volumeClose(ctx context.Context, args []string) error {
	_, rest, err := parseGuest(args, 1, 2, nil)
	if err != nil {
		return err
	}
	control, err := devmapper.Open()
	if err != nil {
		return err
	}
	if err := errors.Join(storage.CloseNamed(control, rest[0]), control.Close()); err != nil || len(rest) == 1 {
		return err
	}
	return withVolume(func(ctx context.Context, m *machine, v storage.Volumes, c storage.VolumeConfig, device string) error {
		return m.steps.do("raise the counter of volume "+c.Name, func() error { return v.Raise(ctx, c, device) })
	})(ctx, args)
}

// volumeConfig is the volume of that name as package storage knows it.
func volumeConfig(m config.Measured, name string) (storage.VolumeConfig, error) {
	v, ok := m.Volumes[name]
	if !ok {
		return storage.VolumeConfig{}, fmt.Errorf("no volume %q in the measured configuration", name)
	}
	layout := luks.Layout{Type: v.Type, Cipher: v.Cipher, Integrity: v.Integrity, SectorSize: *v.SectorSize, Offset: uint64(*v.Offset), Size: uint64(v.Size)}
	if v.Integrity == config.IntegrityNone {
		layout.Integrity = luks.IntegrityNone
	}
	return storage.VolumeConfig{Name: name, Key: v.Key, Header: v.Header, Replay: v.Replay != "", Expect: luks.Expect{Layout: layout, OwnHeader: *v.OwnHeader}}, nil
}

// volumeKeys reads keys from the relying party, sealed, or from the one directory that only the guest's user has.
type volumeKeys struct {
	secrets keyprovider.KeySource
	sealed  *keyprovider.Unsealer
}

// volumeKeys attests when the first key is asked for.
func (m *machine) volumeKeys() (volumeKeys, error) {
	var secrets keyprovider.KeySource = noKBS{}
	if m.conf.KBS.URL != "" {
		client, err := m.relyingParty()
		if err != nil {
			return volumeKeys{}, err
		}
		secrets = client
	}
	sealed, err := m.unsealer(secrets)
	return volumeKeys{secrets, sealed}, err
}

// volumes opens volumes with these keys and the counters of the same relying party.
func (k volumeKeys) volumes(m storage.Mapper) storage.Volumes {
	v := storage.Volumes{Mapper: m, Keys: k}
	if client, ok := k.secrets.(*kbs.Client); ok {
		v.Counter = counters{client}
	}
	return v
}

// close ends the session with the relying party.
func (k volumeKeys) close() {
	if client, ok := k.secrets.(*kbs.Client); ok {
		client.Close()
	}
}

// Key returns what a URI of measured configuration names.
func (k volumeKeys) Key(ctx context.Context, uri string) ([]byte, error) {
	if strings.HasPrefix(uri, "file://") {
		return storage.FileKeys{Dir: config.VolumeKeyDir}.Key(ctx, uri)
	}
	if strings.HasPrefix(uri, sealedPrefix) {
		return k.sealed.Unseal(ctx, []byte(uri))
	}
	return k.secrets.Key(ctx, uri)
}
