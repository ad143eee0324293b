// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/casemate/casemate/agent/attest"
	"github.com/casemate/casemate/agent/eventlog"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// stockInitData is where kata-agent leaves the initdata document.
const stockInitData = "/run/confidential-containers/initdata/initdata.toml"

// maxStockFile caps aa.toml and cdh.toml.
const maxStockFile = 1 << 20

// stock says where a daemon of guest-components finds what it goes by. Whoever starts
// the daemon is measured, or it would not be there to be started: its flags are as
// good as casemate.toml.
type stock struct {
	measured string // casemate.toml; it may be absent, as no other platform has one
	key      string // what the daemon's own file is called in initdata
	file     string // that file, "" for none
	document string // initdata that must exist; "" takes usual if it exists
	usual    string
	events   string // where the event log is kept
	digest   []byte // what the launch must have bound, where there is no document
}

func stockSettings(key string) stock {
	return stock{measured: config.DefaultPath, key: key, usual: stockInitData, events: eventlog.DefaultDir}
}

// openStock is openGuest for a daemon of guest-components. Initdata is bound first;
// the daemon's own file may repeat it and differ in nothing.
func (m *machine) openStock(ctx context.Context, s stock) error {
	conf, err := config.Load(s.measured)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m.conf = conf
	if err := m.placeInitData(s); err != nil {
		return err
	}
	if m.attester == nil {
		if err := m.detect(); err != nil {
			return err
		}
	}
	if m.conf.InitData == "" && s.digest != nil {
		err = m.bindDigest(ctx, s.digest)
	} else {
		err = m.bindInitData(ctx)
	}
	if err != nil {
		return err
	}
	if s.file != "" {
		text, err := readCapped(s.file, maxStockFile)
		if err != nil {
			return fmt.Errorf("reading %s: %w", s.key, err)
		}
		if m.conf, err = m.conf.WithInitData(map[string]string{s.key: string(text)}, m.log); err != nil {
			return fmt.Errorf("reading %s: %w", s.file, err)
		}
	}
	if err := m.openEvents(s.events, eventlog.DefaultMeasurements); err != nil {
		return err
	}
	m.sayWeaknesses()
	return nil
}

// placeInitData settles which file holds initdata.
func (m *machine) placeInitData(s stock) error {
	switch {
	case m.conf.InitData != "" && s.document != "" && m.conf.InitData != s.document:
		return fmt.Errorf("initdata is named twice: %q and %q", m.conf.InitData, s.document)
	case m.conf.InitData != "":
	case s.document != "":
		m.conf.InitData = s.document
	case s.digest == nil:
		if _, err := os.Lstat(s.usual); err == nil {
			m.conf.InitData = s.usual
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("looking for initdata: %w", err)
		}
	}
	return nil
}

// bindDigest compares the digest of a document that only the caller has seen.
func (m *machine) bindDigest(ctx context.Context, digest []byte) error {
	reader, ok := m.attester.(attest.InitDataReader)
	if !ok {
		m.steps.say("the %s evidence does not carry initdata; its digest is not compared", m.attester.TEE())
		return nil
	}
	bound, err := reader.BoundInitData(ctx)
	if err != nil {
		return err
	}
	return initdata.MatchDigest(digest, bound)
}
