// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

func TestOwnerRoundTrip(t *testing.T) {
	b := newBroker(t)
	ctx := t.Context()
	doc := document(t, "web", "")
	want := b.register("web", doc, func(r *owner.Registration) {
		r.Description = "a web server"
		r.Policy = "package policy\nallow := true"
		r.SNP.MinimumTCB = map[string]owner.TCB{owner.Milan: {SNP: 24}, owner.Turin: {FMC: 1}}
	})
	got, err := b.owner.Workload(ctx, "web")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	created, err := b.owner.Register(ctx, want)
	if err != nil || created {
		t.Errorf("registered again: created %v, %v", created, err)
	}
	stored, err := b.owner.PutSecret(ctx, "web", "b/c/2", []byte("123"))
	if err != nil || !stored.Registered || stored.Size != 3 || stored.Path != "b/c/2" {
		t.Errorf("stored %+v, %v", stored, err)
	}
	if stored, err = b.owner.PutSecret(ctx, "later", "b/c/1", []byte("1")); err != nil || stored.Registered {
		t.Errorf("stored %+v, %v", stored, err)
	}
	b.put("web", "a/c/1", "12345")
	secrets, err := b.owner.Secrets(ctx, "web")
	if err != nil || !reflect.DeepEqual(secrets, []owner.Secret{{Path: "a/c/1", Size: 5}, {Path: "b/c/2", Size: 3}}) {
		t.Errorf("secrets %+v, %v", secrets, err)
	}
	list, err := b.owner.Workloads(ctx)
	if err != nil || len(list) != 1 || list[0].ID != "web" || list[0].Secrets != 2 || !list[0].TestRoots {
		t.Errorf("workloads %+v, %v", list, err)
	}
	must(t, b.owner.DeleteSecret(ctx, "web", "a/c/1"))
	must(t, b.owner.Unregister(ctx, "web"))
	if secrets, err = b.owner.Secrets(ctx, "web"); err != nil || len(secrets) != 0 {
		t.Errorf("secrets of a removed workload: %+v, %v", secrets, err)
	}
	// A workload that comes back under the id does not inherit them.
	b.register("web", doc, nil)
	g := b.guest(doc).handshake()
	wantRefused(t, g.get("b/c/2"), 404, "ResourceNotFound")
}

func TestOwnerNotFound(t *testing.T) {
	b := newBroker(t)
	_, err := b.owner.Workload(t.Context(), "none")
	for name, err := range map[string]error{
		"workload": err, "unregister": b.owner.Unregister(t.Context(), "none"), "secret": b.owner.DeleteSecret(t.Context(), "none", "a/b/c"),
	} {
		if !errors.Is(err, owner.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOwnerToken(t *testing.T) {
	b := newBroker(t)
	b.register("web", document(t, "web", ""), nil)
	for name, header := range map[string]string{
		"none": "", "wrong": "Bearer 0123456789abcdee", "prefix": "Bearer 0123456789abcde", "longer": "Bearer 0123456789abcdef0",
		"other scheme": "Basic " + ownerToken, "bare": ownerToken, "empty bearer": "Bearer ",
	} {
		for _, call := range []struct{ method, path string }{
			{"GET", "workloads"}, {"GET", "workloads/web"}, {"PUT", "workloads/web"}, {"DELETE", "workloads/web"},
			{"GET", "workloads/web/secrets"}, {"PUT", "workloads/web/secrets/a/b/c"}, {"DELETE", "workloads/web/secrets/a/b/c"}, {"GET", "nothing"},
		} {
			a := b.do(t.Context(), call.method, "/owner/v1/"+call.path, []byte("x"), map[string]string{"Authorization": header})
			if a.status != http.StatusUnauthorized || !strings.Contains(a.body, `"unauthorized"`) {
				t.Errorf("%s: %s %s: %d %s", name, call.method, call.path, a.status, a.body)
			}
			b.wantLast(audit.Owner, "owner-token")
		}
	}
	// A guest's token is not the owner's.
	doc := document(t, "web", "")
	g := b.guest(doc).handshake()
	a := b.do(t.Context(), "GET", "/owner/v1/workloads", nil, map[string]string{"Authorization": "Bearer " + g.token})
	if a.status != http.StatusUnauthorized {
		t.Errorf("a guest's token: %d", a.status)
	}
}

func TestRefusedRegistrations(t *testing.T) {
	b := newBroker(t)
	good := `{"id":"web","tees":["snp"],"initdata":["sha256:` + strings.Repeat("11", 32) + `"],"snp":{"measurements":["` + strings.Repeat("22", 48) + `"]}}`
	put := func(id, body string) answer {
		return b.do(t.Context(), "PUT", "/owner/v1/workloads/"+id, []byte(body), map[string]string{"Authorization": "Bearer " + ownerToken})
	}
	if a := put("web", good); a.status != http.StatusOK {
		t.Fatalf("the good one: %d %s", a.status, a.body)
	}
	for _, tt := range []struct{ name, id, body, want string }{
		{"of another id", "db", good, "the path names db"},
		{"unknown member", "web", strings.Replace(good, `"id"`, `"admin":true,"id"`, 1), "admin"},
		{"repeated member", "web", strings.Replace(good, `"id"`, `"id":"a","id"`, 1), "duplicate"},
		{"member in another case", "web", strings.Replace(good, `"tees"`, `"TEES"`, 1), "TEES"},
		{"no measurement", "web", strings.Replace(good, `"`+strings.Repeat("22", 48)+`"`, "", 1), "no snp measurement"},
		{"no initdata", "web", strings.Replace(good, `"sha256:`+strings.Repeat("11", 32)+`"`, "", 1), "no initdata digest"},
		{"zero initdata", "web", strings.Replace(good, strings.Repeat("11", 32), strings.Repeat("00", 32), 1), "all zero"},
		{"policy that does not compile", "web", strings.Replace(good, `"id"`, `"policy":"package policy\nallow if {\n  nosuch(1)\n}","id"`, 1), "policy line 3"},
		{"policy that reaches out", "web", strings.Replace(good, `"id"`, `"policy":"package policy\nallow if http.send({})","id"`, 1), "policy line 2"},
		{"agent unproved", "web", strings.Replace(good, `"snp":{`, `"snp":{"firmware_only":true,`, 1), "--accept-unproved=agent"},
		{"initdata unproved", "web", `{"id":"web","tees":["sample"],"policy":"package policy","initdata":["sha256:` + strings.Repeat("11", 32) + `"]}`, "--accept-unproved=agent,initdata"},
		{"another part accepted", "web", strings.Replace(good, `"id"`, `"accept_unproved":["firmware"],"id"`, 1), "firmware"},
		{"not JSON", "web", "id = 1", "parsing registration"},
		{"too large", "web", `{"description":"` + strings.Repeat("x", owner.MaxRegistrationSize) + `"}`, "too large"},
	} {
		a := put(tt.id, tt.body)
		if a.status < 400 || a.status >= 500 || !strings.Contains(a.body, tt.want) {
			t.Errorf("%s: %d %s, want %q", tt.name, a.status, a.body, tt.want)
		}
	}
	r, err := b.owner.Workload(t.Context(), "web")
	if err != nil || r.SNP.Measurements[0] != strings.Repeat("22", 48) || r.TEEs[0] != evidence.SNP {
		t.Errorf("a refused registration changed the good one: %+v, %v", r, err)
	}
}

func TestRefusedSecrets(t *testing.T) {
	b := newBroker(t)
	for _, tt := range []struct {
		path   string
		size   int
		status int
	}{
		{"web/secrets/a/b/c", 0, 400},
		{"web/secrets/a/b/c", owner.MaxSecretSize + 1, 413},
		{"WEB/secrets/a/b/c", 1, 400},
		{"web/secrets/a/b/.c", 1, 400},
		{"web/secrets/a/b", 1, 404},
		{"web/secrets/a/b/c/d", 1, 404},
		{"web/secrets/a/b/..", 1, 404},
		{"web/secrets/a/b/%2e%2e", 1, 404},
		{"web%00/secrets/a/b/c", 1, 404},
	} {
		a := b.do(t.Context(), "PUT", "/owner/v1/workloads/"+tt.path, make([]byte, tt.size), map[string]string{"Authorization": "Bearer " + ownerToken})
		if a.status != tt.status {
			t.Errorf("%s with %d bytes: %d %s, want %d", tt.path, tt.size, a.status, a.body, tt.status)
		}
	}
}

// An owner removes registrations while another's change is read back: that change neither fails nor goes unrecorded.
func TestRegistrationsRemovedWhileTheyAreRead(t *testing.T) {
	b := newBroker(t)
	r := b.register("web", document(t, "web", ""), nil)
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			err := b.server.store.DeleteWorkload(r.ID)
			if err == nil {
				_, err = b.server.store.PutWorkload(r)
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	for range 2000 {
		if err := b.server.admission.load(b.server.store); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	must(t, <-ended)
}

// A body that ends early or cannot be read is the sender's fault, not too large.
func TestOwnerBodyThatCannotBeRead(t *testing.T) {
	b := newBroker(t)
	for _, path := range []string{"/owner/v1/workloads/web", "/owner/v1/workloads/web/secrets/a/b/c"} {
		for name, c := range map[string]struct {
			body io.Reader
			want int
		}{
			"cut":       {iotest.ErrReader(io.ErrUnexpectedEOF), 400},
			"too large": {bytes.NewReader(make([]byte, owner.MaxSecretSize+owner.MaxRegistrationSize)), 413},
		} {
			r := httptest.NewRequest("PUT", path, c.body)
			r.Header.Set("Authorization", "Bearer "+ownerToken)
			w := httptest.NewRecorder()
			if b.server.Handler().ServeHTTP(w, r); w.Code != c.want {
				t.Errorf("%s %s: %d %s, want %d", name, path, w.Code, w.Body, c.want)
			}
		}
	}
}
