// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
)

// Fault is why a pull was refused or failed. Every error of this package that
// is not a policy denial, an unpack error, a context error or a plain I/O error
// of this machine wraps exactly one. Its text is a fixed phrase that names
// nothing found in the image, so it may leave the guest.
type Fault string

// Error returns the fixed phrase.
func (f Fault) Error() string { return string(f) }

// What a Puller can find. The order is that of a pull.
const (
	ErrReference    = Fault("malformed image reference")
	ErrBlocked      = Fault("registry is blocked")           // by registries.conf
	ErrInsecure     = Fault("plain HTTP refused")            // the registry is not in Config.Insecure
	ErrRedirect     = Fault("redirect refused")              // another scheme, or into this machine
	ErrUnauthorized = Fault("registry denied access")        // 401 and 403
	ErrNotFound     = Fault("not found in the registry")     // 404
	ErrRegistry     = Fault("registry error")                // any other answer
	ErrTransport    = Fault("connection failed")             // after every retry
	ErrStalled      = Fault("transfer stalled")              // too few bytes for too long, after every retry
	ErrManifest     = Fault("malformed image document")      // manifest, index, config, layout
	ErrTooLarge     = Fault("image document over its limit") // size or count
	ErrUnsupported  = Fault("unsupported image")             // media type, schema 1, artifact
	ErrPlatform     = Fault("image has no such platform")
	ErrNoSpace      = Fault("not enough space for the image")
	ErrEncryption   = Fault("malformed layer encryption") // options that no encryptor writes
	ErrKey          = Fault("layer key unavailable")      // every wrapped key was refused
	ErrShortBlob    = Fault("blob shorter than declared")
	ErrLongBlob     = Fault("blob longer than declared")
	ErrDigest       = Fault("digest mismatch")                 // of bytes as received
	ErrMAC          = Fault("layer authentication failed")     // HMAC over the ciphertext
	ErrPlainDigest  = Fault("decrypted layer digest mismatch") // against the wrapped private options
	ErrCompression  = Fault("malformed compressed layer")      // including bytes behind its end
	ErrExpansion    = Fault("layer expands beyond its limit")
	ErrDiffID       = Fault("uncompressed layer digest differs") // from the config's diff_ids
	ErrClosed       = Fault("puller is closed")
)

// transient reports whether trying the same pull again later could succeed
// without anybody changing the image, the policy or the configuration.
func transient(err error) bool {
	return errors.Is(err, ErrTransport) || errors.Is(err, ErrStalled) || errors.Is(err, ErrRegistry) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
