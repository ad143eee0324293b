// SPDX-License-Identifier: Apache-2.0

package kbstest

// Mode is one way to misbehave. The zero value is none.
type Mode string

// What can go wrong at POST /auth.
const (
	AuthDenied     Mode = "auth denied"           // 401
	AuthGarbage    Mode = "auth garbage"          // 200 and no JSON
	AuthTwoNonces  Mode = "auth duplicate nonce"  // the member twice
	LongNonce      Mode = "over-long nonce"       // 64 KiB of it
	EmptyNonce     Mode = "empty nonce"           //
	UnknownHash    Mode = "unknown hash"          // selects sm3
	NoCookie       Mode = "no cookie"             // no session
	AuthRedirect   Mode = "auth redirect"         // 307 to another origin
	AuthHuge       Mode = "auth huge body"        // endless
	AuthHang       Mode = "auth hangs"            // no answer
	AuthBusy       Mode = "auth busy"             // 503
	Disconnect     Mode = "disconnect"            // closes the connection
	NotHTTP        Mode = "not HTTP"              // answers with the request's own bytes
	AttestDenied   Mode = "attest denied"         // 401
	AttestRedirect Mode = "attest redirect"       // 307 to another origin
	AttestError    Mode = "attest error"          // 500
	BadToken       Mode = "token is no JWT"       //
	ExpiredToken   Mode = "expired token"         // a minute ago
	EternalToken   Mode = "token without expiry"  //
	FutureToken    Mode = "token of the future"   // not valid for an hour
	SelectSHA512   Mode = "selects sha512"        // not a lie
	OneDisconnect  Mode = "disconnects once"      // then behaves
	OneAttestDrop  Mode = "drops one attestation" // takes it, answers nothing, then behaves
)

// What can go wrong at GET of a resource.
const (
	Denied401    Mode = "resource 401"
	Denied403    Mode = "resource 403"
	Missing404   Mode = "resource 404"
	Error500     Mode = "resource 500"
	Garbage      Mode = "resource garbage"
	PlainSecret  Mode = "secret in the clear"
	Hang         Mode = "resource hangs"
	HugeBody     Mode = "resource huge body"
	SlowBody     Mode = "resource slow body" // a byte now and then
	Redirect     Mode = "resource redirect"  // 302 to another origin
	OtherKey     Mode = "JWE to another key"
	OtherCurve   Mode = "JWE epk on another curve"
	WrongAlg     Mode = "JWE of another alg"
	WrongEnc     Mode = "JWE of another enc"
	Compressed   Mode = "JWE compressed"
	PartyInfo    Mode = "JWE with apu"
	EPKMembers   Mode = "JWE epk with more members"
	TwoTags      Mode = "JWE with a member twice"
	Altered      Mode = "JWE altered"
	Padded       Mode = "JWE in padded base64"
	ForgetsOnce  Mode = "forgets the session once" // 401, then behaves after a handshake
	Echo         Mode = "resource not HTTP"        // answers with the request's own header
	HostileError Mode = "401 with a hostile body"  // repeats the token, escapes the terminal
)
