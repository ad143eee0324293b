// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestParseResourceURI(t *testing.T) {
	for in, want := range map[string][2]string{
		"kbs:///default/key/1":                        {"resource/default/key/1", "kbs:///default/key/1"},
		"kbs://kbs.example:8080/default/key/1":        {"resource/default/key/1", "kbs:///default/key/1"},
		"kbs://[::1]:8080/default/key/1":              {"resource/default/key/1", "kbs:///default/key/1"},
		"kbs+resource:///default/key/1":               {"resource/default/key/1", "kbs:///default/key/1"},
		"kbs+pkcs11:///resource/a/b/c.d":              {"pkcs11/resource/a/b/c.d", "kbs+pkcs11:///resource/a/b/c.d"},
		"kbs+nebula-ca:///credential?name=a&ip=%2Fb":  {"nebula-ca/credential?name=a&ip=%2Fb", "kbs+nebula-ca:///credential?name=a&ip=%2Fb"},
		"kbs:///a_b/-c/d.e?version=2":                 {"resource/a_b/-c/d.e?version=2", "kbs:///a_b/-c/d.e?version=2"},
		"kbs+provisioner:///default/0b-e1.f/root":     {"provisioner/default/0b-e1.f/root", "kbs+provisioner:///default/0b-e1.f/root"},
		"kbs+external:///name/any/number/of/segments": {"external/name/any/number/of/segments", "kbs+external:///name/any/number/of/segments"},
	} {
		u, err := ParseResourceURI(in)
		if err != nil || u.path() != want[0] || u.String() != want[1] {
			t.Errorf("%s: got %q, %q, %v", in, u.path(), u.String(), err)
		}
	}
	for _, in := range []string{
		"", "kbs", "kbs:", "kbs:/default/key/1", "default/key/1", "http://x/default/key/1", "KBS:///default/key/1",
		"kbs+:///default/key/1", "kbs+../auth:///x", "kbs+a+b:///x", "kbs:///", "kbs:///a/b", "kbs:///a/b/c/d",
		"kbs:///a//c", "kbs:///a/b/", "kbs:///../../auth", "kbs:///a/../b", "kbs:///a/.b/c", "kbs:///a/b%2f/c",
		"kbs:///a/b/c?", "kbs:///a/b/c#frag", "kbs:///a/b/c?x=\r\nX: y", "kbs:///a/b/c d", "kbs:///a/b/c\x00",
		"kbs:///a/é/c", "kbs://user@host/a/b/c", "kbs://ho st/a/b/c", "kbs:///a/b/" + strings.Repeat("c", maxURISize),
	} {
		if u, err := ParseResourceURI(in); err == nil {
			t.Errorf("%q: accepted as %s", in, u)
		}
	}
}

func FuzzParseResourceURI(f *testing.F) {
	f.Add("kbs+plugin://host/a/b/c?d=e")
	f.Add("kbs:///a/b/c")
	base := &url.URL{Scheme: "https", Host: "kbs", Path: "/kbs/v0"}
	f.Fuzz(func(t *testing.T, in string) {
		u, err := ParseResourceURI(in)
		if err != nil {
			return
		}
		again, err := ParseResourceURI(u.String())
		if err != nil || again.String() != u.String() || again.path() != u.path() {
			t.Fatalf("%q: canonical form %q: %v", in, u, err)
		}
		req, err := http.NewRequest(http.MethodGet, base.String()+"/"+u.path(), nil)
		if err != nil {
			return // a query with a bad escape is refused before it is sent
		}
		if req.URL.Host != "kbs" || !strings.HasPrefix(req.URL.Path, "/kbs/v0/"+u.plugin+"/") || strings.Contains(req.URL.Path, "..") && !strings.Contains(u.String(), "..") {
			t.Fatalf("%q leads to %s", in, req.URL)
		}
	})
}

func jwt(claims string) []byte {
	b64 := base64.RawURLEncoding.EncodeToString
	return []byte(b64([]byte(`{}`)) + "." + b64([]byte(claims)) + "." + b64([]byte("s")))
}

// The guest's clock plays no part: all times are years from now.
func TestTokenLife(t *testing.T) {
	const at = 2_000_000_000
	date := time.Unix(at, 0)
	for _, tc := range []struct {
		claims string
		date   time.Time
		want   time.Duration
	}{
		{fmt.Sprintf(`{"exp":%d}`, at+300), date, 270 * time.Second},
		{fmt.Sprintf(`{"exp":%d,"iat":%d}`, at+300, at+100), date, 270 * time.Second},
		{fmt.Sprintf(`{"exp":%d,"iat":%d}`, at+300, at), time.Time{}, 270 * time.Second},
		{fmt.Sprintf(`{"exp":%d,"nbf":%d}`, at+300, at+60), date, 270 * time.Second},
		{fmt.Sprintf(`{"exp":%d,"sub":"x"}`, at+40), date, 30 * time.Second},
		{fmt.Sprintf(`{"exp":%d}`, at+1), date, 750 * time.Millisecond},
		{`{"exp":9223372036854775807}`, date, maxTokenLife - tokenMargin},
	} {
		if got, err := tokenLife(jwt(tc.claims), tc.date); err != nil || got != tc.want {
			t.Errorf("%s: got %v, %v, want %v", tc.claims, got, err, tc.want)
		}
	}
	for name, tc := range map[string]struct{ claims, want string }{
		"expired":           {fmt.Sprintf(`{"exp":%d}`, at-90), "expired by"},
		"expires now":       {fmt.Sprintf(`{"exp":%d}`, at), "expired"},
		"long ago":          {`{"exp":-9223372036854775808}`, "expired"},
		"not yet":           {fmt.Sprintf(`{"exp":%d,"nbf":%d}`, at+300, at+61), "not valid yet"},
		"no expiry":         {`{}`, "no expiry"},
		"expiry null":       {`{"exp":null}`, "no expiry"},
		"expiry text":       {`{"exp":"2000000300"}`, "malformed"},
		"expiry twice":      {`{"exp":1,"exp":2000000300}`, "malformed"},
		"no JSON":           {`exp`, "malformed"},
		"expiry in capital": {`{"EXP":2000000300}`, "no expiry"},
	} {
		if got, err := tokenLife(jwt(tc.claims), date); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, %v, want %q", name, got, err, tc.want)
		}
	}
	if _, err := tokenLife(jwt(`{"exp":2000000300}`), time.Time{}); err == nil {
		t.Error("an expiry was compared with the guest's clock")
	}
}

func TestJarShowsCookiesToItsOriginOnly(t *testing.T) {
	base := &url.URL{Scheme: "https", Host: "kbs:8080", Path: "/kbs/v0"}
	j := newJar(base)
	past := time.Unix(0, 0)
	j.SetCookies(base, []*http.Cookie{{Name: "kbs-session-id", Value: "1", Expires: past, Domain: "example", Path: "/other"}, {Name: "b", Value: "2"}})
	if got := j.Cookies(base); len(got) != 2 || got[0].Value != "1" {
		t.Errorf("own origin sees %v", got)
	}
	for _, other := range []string{"http://kbs:8080/", "https://kbs/", "https://kbs:8081/", "https://sub.kbs:8080/", "https://evil/"} {
		u, err := url.Parse(other)
		if err != nil {
			t.Fatal(err)
		}
		if got := j.Cookies(u); len(got) != 0 {
			t.Errorf("%s sees %v", other, got)
		}
		j.SetCookies(u, []*http.Cookie{{Name: "kbs-session-id", Value: "evil"}})
	}
	j.SetCookies(base, []*http.Cookie{{Name: "b", MaxAge: -1}, {Name: "big", Value: strings.Repeat("x", maxCookieSize)}})
	if got := j.Cookies(base); len(got) != 1 || got[0].Value != "1" {
		t.Errorf("own origin sees %v", got)
	}
	for i := range 20 {
		j.SetCookies(base, []*http.Cookie{{Name: fmt.Sprint("c", i), Value: "x"}})
	}
	if got := j.Cookies(base); len(got) != maxCookies {
		t.Errorf("%d cookies kept, want %d", len(got), maxCookies)
	}
}
