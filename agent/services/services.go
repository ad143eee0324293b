// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"encoding/json"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

// callTimeout ends a call whose backend hangs; upstream's clients give up after it.
const callTimeout = 50 * time.Second

// pullTimeout is callTimeout for an image; kata-agent waits as long by default.
const (
	pullTimeout = 20 * time.Minute
	pullMethod  = "/api.ImagePullService/PullImage"
)

// maxRuntimeData caps what evidence can be bound to; it is hashed, not stored.
const maxRuntimeData = 1 << 20

// Evidencer makes evidence of this machine; attest.Attester is one.
type Evidencer interface {
	// TEE returns the name that a KBS request carries.
	TEE() evidence.TEE
	// Evidence returns fresh evidence bound to r, a JSON object.
	Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error)
}

// Attested earns tokens of an attestation service; kbs.AttestationService is one.
type Attested interface {
	// Token returns a JWT that names no key.
	Token(ctx context.Context) ([]byte, error)
}

// Tokens earns tokens for other processes; kbs.Exporter is one.
type Tokens interface {
	// Token returns a JWT and the private key that it names, as PEM. The key must be
	// nobody else's. The caller clears both.
	Token(ctx context.Context) (token, key []byte, err error)
}

// Measurer is the guest's event log; eventlog.Log is one.
type Measurer interface {
	// MeasureFor records an entry of another program and reports whether a register
	// holds it. The domain has been found not to be the guest's.
	MeasureFor(domain, operation, content string) (bound bool, err error)
}

// Resources fetches secrets; kbs.Client is one.
type Resources interface {
	// Key returns what uri names, raw; the caller clears it.
	Key(ctx context.Context, uri string) ([]byte, error)
}

// Unsealer opens sealed secrets; keyprovider.Unsealer is one.
type Unsealer interface {
	// Unseal verifies text and returns what it stands for; the caller clears it.
	Unseal(ctx context.Context, text []byte) ([]byte, error)
}

// Mounts maps and mounts encrypted devices for callers of the data hub.
type Mounts interface {
	// SecureMount does what a request says, all of it, or refuses it.
	SecureMount(ctx context.Context, volumeType string, options map[string]string, flags []string, mountPoint string) error
}

// Images pulls an image for a caller of the data hub.
type Images interface {
	// PullImage makes the image's root file system at bundlePath and returns the
	// digest of the platform's manifest. What an error's method Phrase returns, if it
	// has one, callers may read.
	PullImage(ctx context.Context, imageURL, bundlePath string) (string, error)
}
