// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/casemate/casemate/agent/attest"
	"github.com/casemate/casemate/agent/initdata"
)

const (
	// lateInitData is how long the disk with initdata may take to appear where the
	// evidence says that there is one. The drivers have been loaded before; a disk that
	// comes later is never looked at.
	lateInitData = 2 * time.Second
	lookInitData = 50 * time.Millisecond
)

// bindInitData reads initdata once, compares its digest with what the TEE's report
// carries and takes over what it says. Without initdata the report must carry none.
func (m *machine) bindInitData(ctx context.Context) error {
	var bound []byte
	recorder, records := m.attester.(attest.InitDataRecorder)
	reader, reads := m.attester.(attest.InitDataReader)
	if reads && !records {
		var err error
		if bound, err = reader.BoundInitData(ctx); err != nil {
			return err
		}
	}
	raw, err := m.deliveredInitData(ctx, bound)
	switch {
	case err != nil:
		return err
	case raw == nil && records:
		return recorder.RecordInitData(ctx, nil)
	case raw == nil && reads:
		return requireNone(bound)
	case raw == nil:
		return nil
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		return err
	}
	switch {
	case records:
		err = recorder.RecordInitData(ctx, d.Digest())
	case reads:
		err = d.Match(bound)
	default:
		m.steps.say("the %s evidence does not carry initdata; only the relying party's list stands for it", m.attester.TEE())
	}
	if err != nil {
		return err
	}
	m.initdata = raw
	if text, ok := d.Data[keyPolicy]; ok {
		m.rego = &text
	}
	m.conf, err = m.conf.WithInitData(d.Data, m.log)
	return err
}

// requireNone keeps the door shut where the report carries the digest of initdata
// that is not there: it was taken away, or configuration does not say where it is.
func requireNone(bound []byte) error {
	if initdata.IsZero(bound) {
		return nil
	}
	return fmt.Errorf("checking initdata: the report carries the digest %x and there is no initdata: no file is configured and no disk has it", bound)
}

// deliveredInitData returns the bytes of the document as the host has delivered them,
// nil for none: those of the file that configuration names, and where it names none
// those of the one disk that holds initdata. bound is what the report carries.
func (m *machine) deliveredInitData(ctx context.Context, bound []byte) ([]byte, error) {
	if m.conf.InitData != "" {
		raw, err := readCapped(m.conf.InitData, initdata.MaxSize)
		if err != nil {
			return nil, fmt.Errorf("reading initdata: %w", err)
		}
		return raw, nil
	}
	if m.disks == nil {
		return nil, nil
	}
	for end := time.Now().Add(lateInitData); ; {
		raw, err := initDataOnDisk(m.disks)
		if err != nil || raw != nil || len(bound) == 0 || initdata.IsZero(bound) || time.Now().After(end) {
			return raw, err
		}
		select {
		case <-time.After(lookInitData):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// initDataOnDisk reads the document of the one disk that begins as an initdata device,
// nil where none does. Two are refused, whatever they hold: which one counts would be
// the host's choice, made at every boot anew.
func initDataOnDisk(disks func() ([]string, error)) (raw []byte, err error) {
	devices, err := disks()
	if err != nil {
		return nil, err
	}
	found := ""
	for _, device := range devices {
		doc, err := readInitDataDisk(device)
		switch {
		case errors.Is(err, initdata.ErrNoDevice):
		case err != nil:
			return nil, fmt.Errorf("%s: %w", device, err)
		case found != "":
			return nil, fmt.Errorf("both %s and %s hold initdata", found, device)
		default:
			raw, found = doc, device
		}
	}
	return raw, nil
}

// readInitDataDisk takes a disk that cannot be read for one without initdata, as a
// drive without a medium is.
func readInitDataDisk(device string) ([]byte, error) {
	f, err := os.Open(device)
	if err != nil {
		return nil, initdata.ErrNoDevice
	}
	doc, err := initdata.ReadDevice(f)
	return doc, errors.Join(err, f.Close())
}
