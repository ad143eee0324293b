// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	// maxAttempts is how often anything is tried when nobody answers.
	maxAttempts = 3

	// firstPause lies before the second attempt and doubles before the third.
	firstPause = 500 * time.Millisecond
)

// retry runs op until it succeeds, fails for good, or failed maxAttempts times.
func (c *Client) retry(ctx context.Context, op func() error) error {
	pause := c.firstPause
	for attempt := 1; ; attempt++ {
		err := op()
		if err == nil || !retryable(err) || attempt == maxAttempts {
			return err
		}
		c.cfg.Log.Warn("KBS request failed, trying again", "attempt", attempt, "error", err)
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return fmt.Errorf("%w (last attempt: %w)", context.Cause(ctx), err)
		}
	}
}

// handshake earns a session. An attempt that got no answer starts over with a new
// challenge: a broker takes a nonce once, and this one may have been used up.
func (c *Client) handshake(ctx context.Context) (*session, error) {
	var s *session
	err := c.retry(ctx, func() (err error) {
		s, err = c.attempt(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (c *Client) attempt(ctx context.Context) (*session, error) {
	t := c.begin()
	jar := newJar(c.base)
	s, err := c.converse(ctx, t, jar)
	c.finish(t, s, err)
	c.report(ctx, *t, jar, err)
	return s, err
}

// converse goes through one handshake with cookies in jar and notes in t how far it came.
func (c *Client) converse(ctx context.Context, t *Transcript, jar *jar) (*session, error) {
	s := &session{jar: jar}
	challenge, err := c.auth(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("asking for a challenge: %w", err)
	}
	t.Hash = challenge.Hash
	if s.key, err = newTEEKey(c.cfg.KeyAlgorithm); err != nil {
		return nil, fmt.Errorf("making a TEE key: %w", err)
	}
	body, err := c.attestation(ctx, challenge, s.key)
	if err != nil {
		return nil, err
	}
	t.Sent = body
	if err := c.attest(ctx, s, body, &t.Reference); err != nil {
		return nil, fmt.Errorf("attesting: %w", err)
	}
	c.cfg.Log.Info("attested", "kbs", c.base.Host, "tee", c.cfg.Attester.TEE(), "hash", challenge.Hash,
		"valid", time.Until(s.until).Round(time.Second))
	return s, nil
}

func (c *Client) auth(ctx context.Context, s *session) (evidence.Challenge, error) {
	q := evidence.Request{TEE: c.cfg.Attester.TEE(), Hashes: evidence.SupportedHashes()}
	body, err := c.roundTrip(ctx, s.jar, http.MethodPost, "auth", request{body: q.Encode(), limit: evidence.MaxChallengeSize})
	if err != nil {
		return evidence.Challenge{}, err
	}
	challenge, err := evidence.ParseChallenge(body)
	if err != nil {
		return evidence.Challenge{}, violation(err)
	}
	if s.jar.empty() {
		return evidence.Challenge{}, violation(errors.New("no session cookie"))
	}
	return challenge, nil
}

// attestation binds the nonce and the key into fresh evidence.
func (c *Client) attestation(ctx context.Context, challenge evidence.Challenge, key teeKey) ([]byte, error) {
	public, err := key.public()
	if err != nil {
		return nil, fmt.Errorf("describing the TEE key: %w", err)
	}
	additional, err := c.additional(ctx, challenge, public)
	if err != nil {
		return nil, err
	}
	runtimeData, err := evidence.NewRuntimeData(challenge.Nonce, public, additional)
	if err != nil {
		return nil, violation(err)
	}
	bound, err := runtimeData.ReportData(challenge.Hash)
	if err != nil {
		return nil, violation(err)
	}
	primary, err := c.cfg.Attester.Evidence(ctx, bound)
	if err != nil {
		return nil, fmt.Errorf("making evidence: %w", err)
	}
	return evidence.Attestation{InitData: c.cfg.InitData, RuntimeData: runtimeData, Evidence: primary}.Encode()
}

// additional is the evidence of the devices, made before that of the TEE, which binds its
// text; "" without devices.
func (c *Client) additional(ctx context.Context, challenge evidence.Challenge, public evidence.JWK) (string, error) {
	if len(c.cfg.Devices) == 0 {
		return "", nil
	}
	alone, err := evidence.NewRuntimeData(challenge.Nonce, public, "")
	if err != nil {
		return "", violation(err)
	}
	bound, err := alone.DeviceReportData(challenge.Hash)
	if err != nil {
		return "", violation(err)
	}
	return evidence.GatherAdditional(ctx, c.cfg.Devices, bound)
}

func (c *Client) attest(ctx context.Context, s *session, attestation []byte, reference *string) error {
	// The token's time starts here at the latest, so the session ends no later than it.
	sent := time.Now()
	var date time.Time
	body, err := c.roundTrip(ctx, s.jar, http.MethodPost, "attest",
		request{body: attestation, limit: evidence.MaxTokenSize, date: &date, reference: reference})
	if err != nil {
		return err
	}
	if s.token, err = evidence.ParseToken(body); err != nil {
		return violation(err)
	}
	life, err := tokenLife(s.token, date)
	if err != nil {
		return violation(err)
	}
	s.until = sent.Add(life)
	if issued := tokenIssued(s.token); c.cfg.Issued != nil && c.base.Scheme == "https" && !issued.IsZero() {
		c.cfg.Issued(issued)
	}
	return nil
}
