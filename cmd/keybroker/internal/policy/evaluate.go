// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// TimeLimit ends a decision that does not come. Real policies take under a
// millisecond.
const TimeLimit = time.Second

// Request is what a guest asks for.
type Request struct {
	// Plugin is "resource".
	Plugin string
	// Path are the segments behind the plugin's name.
	Path []string
	// Query are the parameters of the URL, each given once.
	Query map[string]string
	// Workload is the id of the registration the token was issued under.
	Workload string
}

// data is the document that Trustee's policies read, with the workload added.
func (r Request) data() map[string]any {
	path := make([]any, len(r.Path))
	for i, s := range r.Path {
		path[i] = s
	}
	query := make(map[string]any, len(r.Query))
	for k, v := range r.Query {
		query[k] = v
	}
	return map[string]any{"plugin": r.Plugin, "resource-path": path, "query": query, "workload": r.Workload}
}

// Allow decides about claims, the JSON payload of a verified token. Only the boolean
// true allows; an error is a denial with its reason.
func (p *Policy) Allow(ctx context.Context, claims []byte, r Request) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, TimeLimit)
	defer cancel()
	if !jsontext.Value(claims).IsValid() {
		return false, errors.New("reading claims for the policy: not one JSON value without duplicate names")
	}
	input, err := ast.ValueFromReader(bytes.NewReader(claims))
	if err != nil {
		return false, fmt.Errorf("reading claims for the policy: %w", err)
	}
	return p.evaluate(ctx, input, r)
}

func (p *Policy) evaluate(ctx context.Context, input ast.Value, r Request) (bool, error) {
	store := inmem.NewFromObject(r.data())
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return false, fmt.Errorf("preparing policy data: %w", err)
	}
	defer store.Abort(ctx, txn)
	cancel := topdown.NewCancel()
	stop := context.AfterFunc(ctx, cancel.Cancel)
	defer stop()
	results, err := topdown.NewQuery(ast.MustParseBody("x = " + packagePath + "." + ruleName)).
		WithCompiler(p.compiler).
		WithStore(store).
		WithTransaction(txn).
		WithInput(ast.NewTerm(input)).
		WithCancel(cancel).
		Run(ctx)
	if ctx.Err() != nil {
		return false, fmt.Errorf("policy gave no answer within %v: %w", TimeLimit, ctx.Err())
	}
	if err != nil {
		return false, fmt.Errorf("evaluating policy: %w", err)
	}
	if len(results) != 1 {
		return false, nil
	}
	return results[0][ast.Var("x")].Equal(ast.BooleanTerm(true)), nil
}
