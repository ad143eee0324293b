// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/casemate/casemate/imagepull/trust"
)

// Config says where images come from, which are admitted and where they go.
type Config struct {
	// Store is a directory for unpacked layers, created when absent. One Puller
	// uses it at a time; what an earlier one left in it is removed.
	Store string
	// Form is how layers are kept there.
	Form Form
	// Sealer, when not nil, binds each layer's image to what was written, so that a
	// disk below the store cannot change it, nor give an older state back. It takes
	// images: New fails where Form or the kernel would have directories.
	Sealer Sealer
	// Policy admits images. nil refuses every image: to accept anything is a
	// policy that says so.
	Policy *trust.Policy
	// Unwrapper opens the keys of encrypted layers; nil fails on the first one.
	Unwrapper KeyUnwrapper
	// Credentials for registries; nil is anonymous access.
	Credentials *AuthFile
	// Registries names mirrors, moves and blocked registries; nil is none.
	Registries *Registries
	// Lookaside names the stores of OpenPGP signatures; nil is none.
	Lookaside *Lookaside
	// Proxy carries all requests but those to this machine's own names.
	Proxy Proxy
	// Insecure lists registries, host[:port] as in the reference, that may be
	// spoken to over plain HTTP. For all others HTTPS is required, whatever
	// their name or address.
	Insecure []string
	// Roots are the only CAs accepted for registries; nil means the system's.
	Roots *x509.CertPool
	// Certificates are single registries' own; nil is none.
	Certificates *Certificates
	// Platform of the images; the zero value means linux on the architecture of
	// this program.
	Platform ocispec.Platform
	// Log gets a line for each pull and each layer; nil discards them. Lines
	// hold references, digests, sizes and times.
	Log *slog.Logger
	// Progress is told about every running pull five times a second and once at
	// its end, from the pull's own goroutine; nil is nobody.
	Progress func(Progress)
	// Now is the clock for certificates; nil means time.Now.
	Now func() time.Time
	// Parallel is how many layers of one image are worked on at a time; 0 means 3.
	Parallel int
	// StallTimeout ends a connection that yields less than 16 KiB in that time;
	// 0 means 30 s.
	StallTimeout time.Duration
	// MaxLayerBytes caps one layer's tar stream, after decompression; 0 means
	// 64 GiB. The free space of Store caps it as well.
	MaxLayerBytes int64
}

const (
	defaultParallel      = 3
	defaultStallTimeout  = 30 * time.Second
	defaultMaxLayerBytes = 64 << 30
)

// Puller pulls images into one store. Its methods may be called concurrently.
type Puller struct {
	cfg     Config
	log     *slog.Logger
	store   *store
	http    *http.Transport
	local   *http.Transport // for registries named as this machine
	retrier retrier
	chunks  *sync.Pool
	codecs  *decompressors

	ctx    context.Context // ends with the Puller; the parent of every pull
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // running pulls

	mu      sync.Mutex // guards what follows
	closed  bool
	policy  *trust.Policy
	flights map[flightKey]*flight
	clients map[clientKey]*http.Client
	images  map[v1.Hash]*cachedImage

	certifieds map[string]*certTransport // by registry
}

// cachedImage keeps an image's layers in the store between pulls.
type cachedImage struct {
	layers []*layer
	policy [32]byte // hash of the policy that admitted the last use
}

// clientKey is a repository and whether it may be spoken to over plain HTTP.
type clientKey struct {
	repository string
	insecure   bool
}

// flight is one running pull. done is closed after img and err are set.
type flight struct {
	done chan struct{}
	img  *Image
	err  error
}

// flightKey is what makes two pulls equal.
type flightKey struct {
	reference string
	policy    [32]byte
}

// New opens the store. Close gives it up again.
func New(cfg Config) (*Puller, error) {
	if cfg.Store == "" {
		return nil, errors.New("opening image store: no directory is configured")
	}
	if err := cfg.Proxy.check(); err != nil {
		return nil, err
	}
	if cfg.Platform.OS == "" && cfg.Platform.Architecture == "" {
		cfg.Platform = defaultPlatform()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = defaultParallel
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = defaultStallTimeout
	}
	if cfg.MaxLayerBytes <= 0 {
		cfg.MaxLayerBytes = defaultMaxLayerBytes
	}
	store, err := openStore(cfg.Store, cfg.Form, cfg.Sealer, cfg.Log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Puller{
		cfg: cfg, log: cfg.Log, store: store, policy: cfg.Policy,
		http:    newHTTPTransport(cfg.Roots, cfg.Now, cfg.StallTimeout, cfg.Proxy, false),
		local:   newHTTPTransport(cfg.Roots, cfg.Now, cfg.StallTimeout, Proxy{}, true),
		retrier: defaultRetrier(),
		chunks:  newChunkPool(), codecs: new(decompressors),
		ctx: ctx, cancel: cancel,
		flights: map[flightKey]*flight{},
		clients: map[clientKey]*http.Client{},
		images:  map[v1.Hash]*cachedImage{},

		certifieds: map[string]*certTransport{},
	}, nil
}

// SetPolicy replaces the policy, for every use of an image from now on, cached
// ones included. nil refuses every image.
func (p *Puller) SetPolicy(policy *trust.Policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.policy = policy
}

// Pull brings the image that reference names, a registry reference or
// oci:DIR[:TAG], into the store, or finds it there; the policy is asked and the
// keys of encrypted layers are unwrapped in either case. About a layout the
// policy is asked as oci-layout.invalid/image:TAG. Equal pulls that run at the
// same time are one. A pull goes on when ctx ends, so that the next call joins
// it; Close ends it.
//
// An error wraps trust.ErrDenied, a Fault of this package, an error of package
// unpack, ctx's error or one of this machine; nothing of the image is then
// visible in the store, except that whole, verified layers stay for the next
// attempt when only the network failed.
func (p *Puller) Pull(ctx context.Context, reference string) (*Image, error) {
	ref, err := parseReference(reference, p.cfg.Insecure)
	if err != nil {
		return nil, err
	}
	f, err := p.join(reference, ref)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.done:
		return f.img, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("pulling %s, which goes on: %w", reference, context.Cause(ctx))
	}
}

// join finds the running pull that equals this one, or starts it.
func (p *Puller) join(reference string, ref reference) (*flight, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	policy := p.policy
	if policy == nil {
		return nil, fmt.Errorf("pulling %s: %w: no image policy is configured", reference, trust.ErrDenied)
	}
	key := flightKey{reference, policy.Hash()}
	if f := p.flights[key]; f != nil {
		return f, nil
	}
	f := &flight{done: make(chan struct{})}
	p.flights[key] = f
	p.wg.Go(func() {
		f.img, f.err = p.pull(p.ctx, reference, ref, policy)
		p.mu.Lock()
		delete(p.flights, key)
		p.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// source opens what a reference points to; close ends its use.
func (p *Puller) source(ctx context.Context, ref reference) (src source, closeSource func(), err error) {
	if ref.dir != "" {
		l, err := openLayout(ref.dir, ref.tag)
		if err != nil {
			return nil, nil, err
		}
		return l, l.Close, nil
	}
	places, err := p.cfg.Registries.endpoints(ref.name, p.cfg.Insecure)
	if err != nil {
		return nil, nil, err
	}
	src, err = p.firstPlace(ctx, places)
	return src, func() {}, err
}

// client returns the authenticated client for a place's repository. Two pulls may
// log in at the same time; one of the results is kept.
func (p *Puller) client(ctx context.Context, e endpoint) (*http.Client, error) {
	repo := e.ref.Context()
	key := clientKey{repo.Name(), e.insecure}
	p.mu.Lock()
	client := p.clients[key]
	p.mu.Unlock()
	if client != nil {
		return client, nil
	}
	next, err := p.certified(repo.RegistryStr())
	if err != nil {
		return nil, err
	}
	g := &guard{next: next, host: repo.RegistryStr(), insecure: e.insecure}
	client, err = login(ctx, repo, p.cfg.Credentials, g, p.retrier)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients[key] = client
	return client, nil
}

// certified is the way to a registry with the certificates that are configured for
// it, made once.
func (p *Puller) certified(registry string) (http.RoundTripper, error) {
	base := p.transport(registry)
	if p.cfg.Certificates == nil {
		return base, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.certifieds[registry]; t != nil {
		return t, nil
	}
	t, err := p.cfg.Certificates.transport(registry, base)
	if err != nil {
		return nil, err
	}
	p.certifieds[registry] = t
	return t, nil
}

// lookaside is the signature store for the requested name, whatever place the
// image comes from.
func (p *Puller) lookaside(ref name.Reference) lookasideStore {
	base := p.cfg.Lookaside.base(ref)
	host := ""
	if u, err := url.Parse(base); err == nil {
		host = u.Host
	}
	g := &guard{next: p.transport(host), host: host, insecure: true}
	return lookasideStore{base: base, repo: ref.Context(), http: &http.Client{Transport: g, CheckRedirect: g.checkRedirect}}
}

func (p *Puller) transport(registry string) *http.Transport {
	if isLoopback(hostname(registry)) {
		return p.local
	}
	return p.http
}

// Remove drops a cached image and every layer that no other image uses. Nothing
// may have its layers mounted.
func (p *Puller) Remove(img *Image) error {
	p.mu.Lock()
	cached := p.images[img.Manifest]
	delete(p.images, img.Manifest)
	p.mu.Unlock()
	if cached == nil {
		return nil
	}
	return p.store.release(cached.layers, true)
}

// Close ends running pulls, waits for them and gives the store up. The layers
// stay on disk for what has them mounted. Further calls do nothing.
func (p *Puller) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return nil
	}
	p.cancel(ErrClosed)
	p.wg.Wait()
	p.http.CloseIdleConnections()
	p.local.CloseIdleConnections()
	for _, t := range p.certifieds {
		t.own.CloseIdleConnections()
	}
	return p.store.Close()
}
