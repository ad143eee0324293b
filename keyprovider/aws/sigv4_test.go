// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"
)

// The examples of AWS' Signature Version 4 test suite that a request for "/" without a query can take.
func TestPublishedSignatures(t *testing.T) {
	cred := &credential{accessKeyID: "AKIDEXAMPLE", secret: []byte("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")}
	at := scope{at: time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC), region: "us-east-1", service: "service"}
	common := []header{{"host", "example.amazonaws.com"}, {"x-amz-date", "20150830T123600Z"}}
	const token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
	for _, tt := range []struct {
		name, method, body, signed, want string
		more                             []header
	}{
		{"get-vanilla", "GET", "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", nil},
		{"post-vanilla", "POST", "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b", nil},
		{"post-header-key-sort", "POST", "", "host;my-header1;x-amz-date", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
			[]header{{"my-header1", "value1"}}},
		{"post-header-value-case", "POST", "", "host;my-header1;x-amz-date", "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
			[]header{{"my-header1", "VALUE1"}}},
		{"post-x-www-form-urlencoded", "POST", "Param1=value1", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
			[]header{{"content-type", "application/x-www-form-urlencoded"}}},
		{"post-sts-header-before", "POST", "", "host;x-amz-date;x-amz-security-token", "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
			[]header{{"x-amz-security-token", token}}},
	} {
		headers := append(tt.more, common...)
		slices.SortFunc(headers, func(a, b header) int { return strings.Compare(a.name, b.name) })
		got := authorize(cred, at, tt.method, headers, []byte(tt.body))
		want := "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=" + tt.signed + ", Signature=" + tt.want
		if got != want {
			t.Errorf("%s: %s, want %s", tt.name, got, want)
		}
	}
	if !strings.Contains(string(cred.secret), "EXAMPLEKEY") {
		t.Error("signing cleared the credential, which its owner clears")
	}
	// The signing key of the IAM User Guide's example.
	at.service = "iam"
	if got := hex.EncodeToString(signingKey(cred.secret, at)); got != "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9" {
		t.Errorf("signing key %s", got)
	}
}
