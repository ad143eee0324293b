// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestSignatureMatrix has a policy entry for each kind that containers-policy.json(5) shows by example, with keys by
// path, in one document, and the images that each admits and refuses.
func TestSignatureMatrix(t *testing.T) {
	digest := digestOf("image")
	vendor, reviewer := newGPG(t, nil), newGPG(t, nil)
	tag, bundle := newMint(t, false), newMint(t, true)
	bundle.root, bundle.issuer, bundle.log, bundle.key = tag.root, tag.issuer, tag.log, tag.key
	bundle.payload = statementFor(digest.String())
	files := keyFiles{
		"/key.pub": tag.key.pem(), "/rekor.pub": tag.log.pem(), "/ca.pem": pemOf(tag.root.cert),
		"/vendor.gpg": string(publicRing(t, vendor)), "/reviewer.gpg": string(publicRing(t, reviewer)),
	}
	gpg := `'type':'signedBy','keyType':'GPGKeys','keyPath'`
	p := policy(t, fmt.Sprintf(`{'default':[{'type':'reject'}],'transports':{
		'dir':{'':[{'type':'insecureAcceptAnything'}]},
		'atomic':{'registry.example:5000/ns':[{%[1]s:'/vendor.gpg'}]},
		'docker':{
			'docker.io/open':[{'type':'insecureAcceptAnything'}],
			'docker.io/library/busybox':[{'type':'insecureAcceptAnything'}],
			'*.temporary.example.com':[{'type':'insecureAcceptAnything'}],
			'r.example:5000/full':[{'type':'sigstoreSigned','keyPath':'/key.pub'}],
			'r.example:5000/repo':[{'type':'sigstoreSigned','keyPath':'/key.pub','signedIdentity':{'type':'matchRepository'}}],
			'r.example:5000/any':[{'type':'sigstoreSigned','keyPath':'/key.pub','signedIdentity':{'type':'matchDigestOnly'}}],
			'r.example:5000/logged':[{'type':'sigstoreSigned','keyPaths':['/key.pub'],'rekorPublicKeyPath':'/rekor.pub'}],
			'r.example:5000/fulcio':[{'type':'sigstoreSigned','fulcio':{'caPath':'/ca.pem','oidcIssuer':'%[2]s','subjectEmail':'%[3]s'},
				'rekorPublicKeyPaths':['/rekor.pub'],'signedIdentity':{'type':'matchRepository'}}],
			'r.example:5000/fulcioany':[{'type':'sigstoreSigned','fulcio':{'caPath':'/ca.pem','oidcIssuer':'%[2]s','subjectEmail':'%[3]s'},
				'rekorPublicKeyPath':'/rekor.pub','signedIdentity':{'type':'matchDigestOnly'}}],
			'r.example:5000/pki':[{'type':'sigstoreSigned','pki':{'caRootsPath':'/ca.pem','subjectEmail':'%[3]s'},'rekorPublicKeyPath':'/rekor.pub'}],
			'r.example:5000/official':[{%[1]s:'/vendor.gpg'}],
			'r.example:5000/product':[{%[1]s:'/vendor.gpg','signedIdentity':{'type':'exactRepository','dockerRepository':'vendor.example/product'}},
				{%[1]s:'/reviewer.gpg'}],
			'mirror.example:5000/vendor':[{%[1]s:'/vendor.gpg','signedIdentity':{'type':'remapIdentity','prefix':'mirror.example:5000/vendor','signedPrefix':'vendor.example'}}]
		}}}`, gpg, mintIssuer, mintEmail))
	if err := p.LoadKeys(context.Background(), files); err != nil {
		t.Fatal(err)
	}
	one := func(s Signature) *registry { return holding(digest, s) }
	cosign2 := func(name string, keyed bool) *registry {
		tag.payload, tag.keyed = payloadFor(name, digest), keyed
		return one(tag.make())
	}
	cosign3 := func(keyed bool) *registry {
		bundle.keyed = keyed
		return one(bundle.make())
	}
	byVendor := func(name string) []byte { return message(t, vendor, gpgPayload(name, digest), nil) }
	byReviewer := func(name string) []byte { return message(t, reviewer, gpgPayload(name, digest), nil) }
	gpgs := func(list ...[]byte) *registry { return &registry{messages: map[v1.Hash][][]byte{digest: list}} }
	unsigned := one(Signature{})
	tests := []struct {
		image string
		src   *registry
		want  string // of the refusal; "" admits
	}{
		{"docker.io/open/hello:v1", unsigned, ""},
		{"docker.io/open/deep/er:v1", unsigned, ""},
		{"busybox:1.36", unsigned, ""},
		{"alpine:3", unsigned, "default reject[0]"},
		{"a.temporary.example.com/x:v1", unsigned, ""},
		{"temporary.example.com/x:v1", unsigned, "default reject[0]"},
		{"registry.example:5000/ns/app:v1", gpgs(byVendor("registry.example:5000/ns/app:v1")), "default reject[0]"},

		{"r.example:5000/full:v1", cosign2("r.example:5000/full:v1", true), ""},
		{"r.example:5000/full:v1", cosign2("r.example:5000/full:v2", true), "for r.example:5000/full:v2"},
		{"r.example:5000/full:v1", cosign2("r.example:5000/full", true), "for r.example:5000/full"},
		{"r.example:5000/full:v1", cosign3(true), "for no name"},
		{"r.example:5000/full:v1", unsigned, "not by an accepted key"},
		{"r.example:5000/repo:v1", cosign2("r.example:5000/repo", true), ""},
		{"r.example:5000/repo:v1", cosign2("r.example:5000/other", true), "for r.example:5000/other"},
		{"r.example:5000/repo:v1", cosign3(true), "for no name"},
		{"r.example:5000/any:v1", cosign3(true), ""},
		{"r.example:5000/any:v1", cosign2("r.example:5000/other", true), ""},
		{"r.example:5000/logged:v1", cosign2("r.example:5000/logged:v1", true), ""},
		{"r.example:5000/logged:v1", one(tag.key.sign(payloadFor("r.example:5000/logged:v1", digest))), "without an entry of a log"},

		{"r.example:5000/fulcio:v1", cosign2("r.example:5000/fulcio", false), ""},
		{"r.example:5000/fulcio:v1", cosign2("r.example:5000/fulcio", true), "without the signer's certificate"},
		{"r.example:5000/fulcio:v1", cosign2("r.example:5000/other", false), "for r.example:5000/other"},
		{"r.example:5000/fulcio:v1", cosign3(false), "for no name"},
		{"r.example:5000/fulcioany:v1", cosign3(false), ""},
		{"r.example:5000/fulcioany:v1", cosign3(true), "without the signer's certificate"},
		{"r.example:5000/pki:v1", cosign2("r.example:5000/pki:v1", false), ""},
		{"r.example:5000/pki:v1", cosign2("r.example:5000/pki:v2", false), "for r.example:5000/pki:v2"},

		{"r.example:5000/official:v1", gpgs(byVendor("r.example:5000/official:v1")), ""},
		{"r.example:5000/official:v1", gpgs(byReviewer("r.example:5000/official:v1")), "not by an accepted key"},
		{"r.example:5000/product:v1", gpgs(byVendor("vendor.example/product:v7"), byReviewer("r.example:5000/product:v1")), ""},
		{"r.example:5000/product:v1", gpgs(byVendor("vendor.example/product:v7")), "signedBy[1]"},
		{"r.example:5000/product:v1", gpgs(byReviewer("r.example:5000/product:v1")), "signedBy[0]"},
		{"mirror.example:5000/vendor/a/image:latest", gpgs(byVendor("vendor.example/a/image:latest")), ""},
		{"mirror.example:5000/vendor/a/image:latest", gpgs(byVendor("mirror.example:5000/vendor/a/image:latest")), "signedBy[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.image+" "+tt.want, func(t *testing.T) {
			err := p.Check(context.Background(), subject(t, tt.image, digest), tt.src)
			wantVerdict(t, err, tt.want)
		})
	}
	for path := range files {
		missing := keyFiles{}
		for other, text := range files {
			if other != path {
				missing[other] = text
			}
		}
		again := policy(t, `{'default':[{'type':'sigstoreSigned','fulcio':{'caPath':'`+path+`','oidcIssuer':'i','subjectEmail':'e'},'rekorPublicKeyPath':'`+path+`'}]}`)
		if err := again.LoadKeys(context.Background(), missing); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("without %s: %v", path, err)
		}
		if err := again.LoadKeys(context.Background(), files); err == nil {
			t.Errorf("%s is taken as CA and key", path)
		}
		if err := again.Check(context.Background(), subject(t, "busybox", digest), unsigned); !errors.Is(err, ErrDenied) {
			t.Errorf("after a failed load: %v", err)
		}
	}
}
