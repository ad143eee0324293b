// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate/casemate/cmd/internal/version"
	"github.com/casemate/casemate/cmd/keybroker/internal/api"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// serveFlags are those of keybroker serve.
type serveFlags struct {
	listen      string
	state       string
	sealKeyFile string
	tls         tlsFlags
	verifier    verifierFlags
	authRate    float64
	json        bool
}

func newServe(s streams) *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve --state DIR",
		Short: "Answer guests and owners",
		Long: `Answer guests and owners. The state directory is made when it is not there, with the
owner token in the file owner-token and, with --tls-self-signed, the certificate to
pin in tls.crt.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return serve(c.Context(), s, f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "address to listen on")
	flags.StringVar(&f.state, "state", "", "state directory (required)")
	flags.StringVar(&f.sealKeyFile, "seal-key-file", "", "file with the key that encrypts the state, made when it is not there (default seal.key in the state directory)")
	flags.Float64Var(&f.authRate, "auth-rate", api.DefaultAuthRate, "sessions that one address may open a second")
	flags.BoolVar(&f.json, "json", false, "log JSON")
	f.verifier.add(flags)
	f.tls.add(flags)
	return c
}

func (f *serveFlags) check() error {
	if f.state == "" {
		return usagef("--state is required")
	}
	if f.authRate <= 0 {
		return usagef("--auth-rate is %v, want more than 0", f.authRate)
	}
	return f.tls.check()
}

// serve is the life of a keybroker.
func serve(ctx context.Context, s streams, f serveFlags) (err error) {
	log := newLogger(s, f.json)
	if err := store.EnsureDir(f.state); err != nil {
		return err
	}
	st, err := openStore(f, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	issuer, err := openIssuer(st)
	if err != nil {
		return err
	}
	token, err := openOwnerToken(f.state, log)
	if err != nil {
		return err
	}
	defer clear(token)
	judge, err := f.verifier.open(f.state)
	if err != nil {
		return err
	}
	records, err := audit.Open(f.state, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	server, err := api.New(api.Config{
		Store: st, Issuer: issuer, Verifier: judge, Audit: records, Log: log, OwnerToken: token, AuthRate: f.authRate,
	})
	if err != nil {
		return err
	}
	tlsConfig, err := f.tls.open(f.state, f.listen, log)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", f.listen, err)
	}
	if err := announce(records, log, f, listener.Addr().String(), tlsConfig); err != nil {
		return errors.Join(err, listener.Close())
	}
	refreshing, stop := context.WithCancel(ctx)
	refreshed := make(chan struct{})
	go func() {
		defer close(refreshed)
		refresh(refreshing, judge, log)
	}()
	defer func() { stop(); <-refreshed }()
	return server.Serve(ctx, listener, tlsConfig)
}

// refreshRetry is how soon lists that could not be had are asked for again.
const refreshRetry = time.Hour

// refresh keeps AMD's revocation lists and intermediates current, where AMD is asked at all.
func refresh(ctx context.Context, judge *verifier.Verifier, log *slog.Logger) {
	for {
		pause := verifier.RefreshInterval
		if err := judge.Refresh(ctx); err != nil && ctx.Err() == nil {
			log.Warn("fetching what AMD publishes", "error", err)
			pause = refreshRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func newLogger(s streams, asJSON bool) *slog.Logger {
	if asJSON {
		return slog.New(slog.NewJSONHandler(s.out, nil))
	}
	return slog.New(slog.NewTextHandler(s.out, nil))
}

// announce names every weakness that this keybroker was told to have, on its output
// and in the audit log.
func announce(records *audit.Log, log *slog.Logger, f serveFlags, addr string, tlsConfig *tls.Config) error {
	var weak []string
	if tlsConfig == nil {
		weak = append(weak, "plain http: answers are not authenticated and the owner token can be read on the way")
	}
	if f.verifier.testRoots() {
		weak = append(weak, "a test root is trusted: workloads registered with test_roots accept evidence that proves nothing about hardware")
	}
	if f.sealKeyFile == "" {
		weak = append(weak, "the seal key is in the state directory: whoever copies the directory has the secrets")
	}
	for _, w := range weak {
		log.Warn("weakness: " + w)
	}
	scheme := "https"
	if tlsConfig == nil {
		scheme = "http"
	}
	note := fmt.Sprintf("keybroker %s on %s://%s", version.Number, scheme, addr)
	if len(weak) > 0 {
		note += "; weaknesses: " + strings.Join(weak, "; ")
	}
	return records.Write(audit.Record{Event: audit.Start, Allowed: true, Note: note})
}

// sealKeyName is where the seal key is unless a flag says otherwise.
func (f *serveFlags) sealKeyName() string {
	if f.sealKeyFile != "" {
		return f.sealKeyFile
	}
	return filepath.Join(f.state, "seal.key")
}
