// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// MaxText bounds a policy in bytes. A generated policy of a pod with three containers has about 60 KB.
const MaxText = 1 << 20

const (
	packageName = "agent_policy"
	stateName   = "pstate"
	// failOpen is the rule by which kata's agent lets denied requests pass.
	failOpen = "AllowRequestsFailingPolicy"
)

// Policy is a loaded policy with its state. It is safe for concurrent use.
type Policy struct {
	text     []byte
	version  ast.RegoVersion
	compiler *ast.Compiler
	store    storage.Store
	// turn holds one token while nobody decides: the lock, as a channel so that waiting ends with the request.
	turn  chan struct{}
	watch func(Denial)      // nil: nobody is told of denials
	names map[string]string // of containers, by their ids
	state map[string]any    // what the store holds as data.pstate; its values are never changed in place
	// repeats belongs to whoever has the turn, as state does.
	repeats repeats
	slack   []byte
}

// slack is never written to, so it takes addresses and no memory, but the garbage collector counts it: the heap may grow
// by as much more before it comes. It would come every dozen decisions otherwise, and a decision that it comes to takes
// twice as long.
const slack = 8 << 20

// Load compiles text, Rego v1 or v0, and starts with an empty state. Errors name the line; they quote text and are
// for the tenant, who wrote it.
func Load(text []byte) (*Policy, error) {
	p, err := loadOnce(text)
	if err == nil {
		p.slack = make([]byte, slack)
	}
	return p, err
}

// loadOnce is for a policy that decides once.
func loadOnce(text []byte) (*Policy, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("loading policy: %d bytes, at most %d allowed", len(text), MaxText)
	}
	if !utf8.Valid(text) {
		return nil, errors.New("loading policy: not UTF-8")
	}
	version := ast.RegoV1
	compiler, base, err := compile(text, ast.RegoV1, false)
	if isSyntax(err) {
		var failed error
		if compiler, base, failed = compile(text, ast.RegoV0, false); failed == nil {
			version, err = ast.RegoV0, nil
		} else {
			err = further(err, failed)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("loading policy: %w", err)
	}
	base[stateName] = map[string]any{}
	p := &Policy{
		text: text, version: version, compiler: compiler, state: map[string]any{}, repeats: repeats{}, names: map[string]string{}, turn: make(chan struct{}, 1),
		store: inmem.NewFromObjectWithOpts(base, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true)),
	}
	p.turn <- struct{}{}
	return p, nil
}

// compile returns the compiled rules and the data document that the lifted constants make. Without prints, print
// calls are dropped by the compiler: what they would quote exists nowhere.
func compile(text []byte, version ast.RegoVersion, prints bool) (*ast.Compiler, map[string]any, error) {
	caps := capabilities()
	module, err := ast.ParseModuleWithOpts("policy.rego", string(text), ast.ParserOptions{RegoVersion: version, Capabilities: caps})
	if err != nil {
		return nil, nil, located(err)
	}
	if got := module.Package.Path.String(); got != "data."+packageName {
		return nil, nil, &placed{row: module.Package.Location.Row, why: fmt.Sprintf("%s, want package %s", module.Package, packageName)}
	}
	if err := refuseKeywords(module); err != nil {
		return nil, nil, err
	}
	if err := refuseFailOpen(module); err != nil {
		return nil, nil, err
	}
	callOwn(module)
	base, err := lift(module)
	if err != nil {
		return nil, nil, err
	}
	compiler := ast.NewCompiler().WithCapabilities(caps).WithBuiltins(ownDeclarations()).WithEnablePrintStatements(prints)
	compiler.Compile(map[string]*ast.Module{"policy.rego": module})
	if compiler.Failed() {
		return nil, nil, located(compiler.Errors)
	}
	return compiler, base, nil
}

// refuseKeywords refuses a v0 text that uses a keyword of v1 as a rule's name. Read as v0, "A := true if { c }" is two
// rules, A without a condition and one named if: a v1 text with a mistake elsewhere would become one that allows.
func refuseKeywords(module *ast.Module) error {
	for _, rule := range module.Rules {
		name, ok := rule.Head.Ref()[0].Value.(ast.Var)
		if ok && slices.Contains([]ast.Var{"if", "in", "contains", "every"}, name) {
			return &placed{row: rule.Location.Row, why: fmt.Sprintf("%q is a keyword of Rego v1 and no rule name", string(name)), syntax: true}
		}
	}
	return nil
}

// refuseFailOpen takes the rule only where it can say nothing but false, as genpolicy writes it.
func refuseFailOpen(module *ast.Module) error {
	for _, rule := range module.Rules {
		for r := rule; r != nil; r = r.Else {
			ref := rule.Head.Ref()
			if len(ref) == 0 || !ref[0].Equal(ast.VarTerm(failOpen)) {
				continue
			}
			if len(ref) != 1 || r.Head.Value == nil || !r.Head.Value.Equal(ast.BooleanTerm(false)) {
				return &placed{row: r.Location.Row, why: failOpen + " is refused: a denied request is never let through"}
			}
		}
	}
	return nil
}

// placed is an error at a line of the policy.
type placed struct {
	row    int
	why    string
	syntax bool // said by the parser
}

func (e *placed) Error() string {
	if e.row == 0 {
		return e.why
	}
	return fmt.Sprintf("line %d: %s", e.row, e.why)
}

// located takes the library's first error.
func located(err error) error {
	var list ast.Errors
	if !errors.As(err, &list) || len(list) == 0 {
		return &placed{why: err.Error()}
	}
	first := list[0]
	at := &placed{why: first.Message, syntax: first.Code == ast.ParseErr}
	if first.Location != nil {
		at.row = first.Location.Row
	}
	if len(list) > 1 {
		at.why += fmt.Sprintf(" (and %d more)", len(list)-1)
	}
	return at
}

// isSyntax says whether err comes from the parser. A text that is v1 by its form is judged as v1 only.
func isSyntax(err error) bool {
	var at *placed
	return errors.As(err, &at) && at.syntax
}

// further picks the error to show for a text that neither version takes: v0's where the text looks like v0.
func further(v1, v0 error) error {
	var a, b *placed
	if errors.As(v1, &a) && errors.As(v0, &b) && (b.row > a.row || !b.syntax && strings.Contains(a.why, "keyword is required")) {
		return v0
	}
	return v1
}
