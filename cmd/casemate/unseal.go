// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/casemate/casemate/keyprovider"
)

// runUnseal writes, raw, what the sealed secret on standard input stands for. White
// space around the text is not part of it: editors and pipes add a last newline.
func runUnseal(ctx context.Context, args []string) error {
	o, _, err := parse(args, 0, 0, nil)
	if err != nil {
		return err
	}
	text, err := readAll(os.Stdin, keyprovider.MaxSealedBytes)
	if err != nil {
		return fmt.Errorf("reading the sealed secret: %w", err)
	}
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	client, err := m.relyingParty()
	if err != nil {
		return err
	}
	secret, err := (&keyprovider.Unsealer{Keys: client}).Unseal(ctx, bytes.TrimSpace(text))
	if err != nil {
		return err
	}
	defer clear(secret)
	_, err = os.Stdout.Write(secret)
	return err
}
