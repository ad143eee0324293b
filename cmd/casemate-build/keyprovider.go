// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/keyprovider"
)

type keyProviderCommand struct {
	streams
	kek    kekFlags
	listen string
	asJSON bool
}

// serving is printed once clients can connect.
type serving struct {
	Listen string `json:"listen"`
	KeyID  string `json:"key_id"`
	// Config is the content of the file that OCICRYPT_KEYPROVIDER_CONFIG names.
	Config providerConfig `json:"config"`
}

// providerConfig is ocicrypt's configuration of key providers.
type providerConfig struct {
	KeyProviders map[string]map[string]string `json:"key-providers"`
}

func newKeyProvider(s streams) *cobra.Command {
	kc := &keyProviderCommand{streams: s}
	c := &cobra.Command{
		Use:   "keyprovider --listen unix:PATH|127.0.0.1:PORT --key-id kbs:///REPOSITORY/TYPE/TAG [flags]",
		Short: "Wrap layer keys for skopeo and other ocicrypt tools",
		Long: `Serve the wrapping half of ocicrypt's key-provider protocol until interrupted. With
the printed configuration in the file that OCICRYPT_KEYPROVIDER_CONFIG names,

  skopeo copy --encryption-key provider:attestation-agent:keyid=KEY-ID SRC DST

encrypts layers for guests that get the key. A unix socket serves this user and
root only; a loopback port serves every process of this machine, which may then
wrap with the key and never unwrap.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return kc.run(c.Context()) },
	}
	kc.kek.bind(c)
	c.Flags().StringVar(&kc.listen, "listen", "", "`ADDRESS`: unix:PATH or a port of 127.0.0.1 or [::1]")
	c.Flags().BoolVar(&kc.asJSON, "json", false, "print JSON")
	return c
}

func (kc *keyProviderCommand) run(ctx context.Context) error {
	if kc.listen == "" {
		return usagef("--listen is missing")
	}
	if err := kc.kek.check(); err != nil {
		return err
	}
	key, err := kc.kek.open(ctx)
	if err != nil {
		return err
	}
	defer key.Close()
	listener, err := keyprovider.Listen(ctx, kc.listen)
	if err != nil {
		return err
	}
	// Nothing is wrapped with a key that no guest can get.
	err = key.publish(ctx)
	if err == nil {
		err = kc.announce(listener.Addr())
	}
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	log := slog.New(slog.NewTextHandler(kc.err, nil))
	return keyprovider.Serve(ctx, listener, &keyprovider.WrapService{KeyID: key.id, Keys: key}, log)
}

func (kc *keyProviderCommand) announce(addr net.Addr) error {
	s := serving{Listen: addr.String(), KeyID: kc.kek.keyID}
	if addr.Network() == "unix" {
		path, err := filepath.Abs(addr.String())
		if err != nil {
			return err
		}
		s.Listen = "unix://" + path
	}
	s.Config.KeyProviders = map[string]map[string]string{keyprovider.ProviderName: {"grpc": s.Listen}}
	if kc.asJSON {
		return printJSON(kc.out, s)
	}
	if _, err := fmt.Fprintf(kc.out, "wrapping with %s on %s; configuration for OCICRYPT_KEYPROVIDER_CONFIG:\n", s.KeyID, s.Listen); err != nil {
		return err
	}
	return printJSON(kc.out, s.Config)
}
