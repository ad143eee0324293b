// SPDX-License-Identifier: Apache-2.0

package kbstest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

// lieAtAuth answers in place of a proper challenge and reports whether it did.
func (s *Server) lieAtAuth(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case s.does(AuthDenied):
		refuse(w, http.StatusUnauthorized, "AttestationError", "KBS Client Protocol Version Mismatch")
	case s.does(AuthGarbage):
		io.WriteString(w, "<html>hello</html>")
	case s.does(AuthRedirect):
		http.Redirect(w, r, s.other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	case s.does(AuthHuge):
		s.flood(w, r)
	case s.does(AuthHang):
		s.hang(r)
	case s.does(AuthBusy):
		w.WriteHeader(http.StatusServiceUnavailable)
	case s.does(Disconnect), s.doesOnce(OneDisconnect):
		panic(http.ErrAbortHandler)
	case s.does(NotHTTP):
		s.echo(w, r)
	default:
		return false
	}
	return true
}

func (s *Server) lieAtAttest(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case s.does(AttestDenied):
		refuse(w, http.StatusUnauthorized, "AttestationError", "RCAR handshake Attest failed")
	case s.does(AttestRedirect):
		http.Redirect(w, r, s.other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	case s.does(AttestError):
		w.WriteHeader(http.StatusInternalServerError)
	default:
		return false
	}
	return true
}

func (s *Server) lieAtGet(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case s.does(Denied401):
		refuse(w, http.StatusUnauthorized, "PolicyDeny", "access denied by policy")
	case s.does(Denied403):
		refuse(w, http.StatusForbidden, "PolicyDeny", "access denied by policy")
	case s.does(Missing404):
		refuse(w, http.StatusNotFound, "ResourceNotFound", "no such resource")
	case s.does(Error500):
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, r.Header.Get("Authorization"))
	case s.does(Garbage):
		io.WriteString(w, "\x00\x01 garbage "+r.Header.Get("Authorization"))
	case s.does(PlainSecret):
		io.WriteString(w, "a secret that anybody could have put here")
	case s.does(Hang):
		s.hang(r)
	case s.does(HugeBody):
		s.flood(w, r)
	case s.does(SlowBody):
		s.drip(w, r)
	case s.does(Redirect):
		http.Redirect(w, r, s.other.URL+r.URL.Path, http.StatusFound)
	case s.does(Echo):
		s.echo(w, r)
	case s.does(HostileError):
		refuse(w, http.StatusForbidden, "PolicyDeny", "\x1b[2Jforged\nlevel=INFO "+strings.Repeat("x", 4096)+r.Header.Get("Authorization"))
	default:
		return false
	}
	return true
}

// hang answers nothing until the client or the test gives up.
func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.gone:
	}
}

// flood writes until the client hangs up.
func (s *Server) flood(w http.ResponseWriter, r *http.Request) {
	chunk := []byte(`{"nonce":"` + strings.Repeat("A", 64<<10))
	for r.Context().Err() == nil {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// drip writes a byte now and then and never ends.
func (s *Server) drip(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w)
	for {
		if _, err := io.WriteString(w, " "); err != nil || flush.Flush() != nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
			return
		case <-s.gone:
			return
		}
	}
}

// echo takes the connection and answers with the request's own header, which is no
// HTTP answer.
func (s *Server) echo(w http.ResponseWriter, r *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	r.Header.Write(conn)
}

// seal encrypts a secret as a broker does, or as the mode would have it.
func (s *Server) seal(key evidence.JWK, secret []byte) []byte {
	if s.does(OtherKey, OtherCurve, WrongAlg) {
		key = s.otherKey(key)
	}
	j, err := evidence.SealJWE(key, secret)
	if err != nil {
		panic(err)
	}
	header, err := base64.RawURLEncoding.DecodeString(j.Protected)
	if err != nil {
		panic(err)
	}
	edit := func(from, to string) {
		j.Protected = base64.RawURLEncoding.EncodeToString(bytes.Replace(header, []byte(from), []byte(to), 1))
	}
	switch {
	case s.does(WrongEnc):
		edit(`"A256GCM"`, `"A128GCM"`)
	case s.does(Compressed):
		edit(`{`, `{"zip":"DEF",`)
	case s.does(PartyInfo):
		edit(`{`, `{"apu":"AA",`)
	case s.does(EPKMembers):
		edit(`"kty":"EC"`, `"kty":"EC","kid":"k"`)
	case s.does(Altered):
		j.Ciphertext[0] ^= 1
	}
	body := j.Encode()
	switch {
	case s.does(TwoTags):
		body = append([]byte(`{"tag":"AAAAAAAAAAAAAAAAAAAAAA",`), body[1:]...)
	case s.does(Padded):
		body = bytes.Replace(body, []byte(`","ciphertext"`), []byte(`==","ciphertext"`), 1)
	}
	return body
}

// otherKey returns a key that is not the client's: of its kind, on another curve, or
// of the other kind.
func (s *Server) otherKey(key evidence.JWK) evidence.JWK {
	isEC := key.EC() != nil
	if s.does(WrongAlg) && isEC || s.does(OtherKey) && !isEC {
		priv, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return must(evidence.NewRSAJWK(&priv.PublicKey))
	}
	curve := ecdh.P256()
	if is521 := isEC && key.EC().Curve() == ecdh.P521(); is521 != s.does(OtherCurve) {
		curve = ecdh.P521()
	}
	priv, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return must(evidence.NewECJWK(priv.PublicKey()))
}

func must(key evidence.JWK, err error) evidence.JWK {
	if err != nil {
		panic(err)
	}
	return key
}
