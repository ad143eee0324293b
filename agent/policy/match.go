// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

const (
	// minText is from where on the text that a pattern begins with is compared without it: half a container's id.
	minText = 32
	// maxRest bounds the other part of a pattern that is taken apart, far below where size makes a pattern invalid.
	maxRest = 256
)

// matchPattern is regex.match(pattern, value). Generated policies put the container's id into the patterns of its
// mounts. The library compiles each anew for each container, which costs three times the memory of all else in the
// decision, and keeps the last hundred. What follows the id is the same for all containers, and compiled once.
func matchPattern(bctx topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
	theirs := topdown.GetBuiltin(ast.RegexMatch.Name)
	pattern, isText := operands[0].Value.(ast.String)
	value, given := operands[1].Value.(ast.String)
	text, rest, ok := splitPattern(string(pattern))
	if !isText || !given || !ok {
		return theirs(bctx, operands, iter)
	}
	after, begins := strings.CutPrefix(string(value), text)
	// Asked even where the answer is known: a pattern that is none is an error for every value.
	return theirs(bctx, []*ast.Term{ast.StringTerm("^" + rest), ast.StringTerm(after)}, func(matches *ast.Term) error {
		if !begins {
			matches = ast.InternedTerm(false)
		}
		return iter(matches)
	})
}

// splitPattern takes a pattern "^text…" apart where a value matches it if and only if the value begins with text and
// what follows matches "^rest". text is ASCII, so that it has no other spelling in bytes. rest has neither groups nor
// alternatives, which could reach back into text, nor an assertion about what stands before it.
func splitPattern(pattern string) (text, rest string, ok bool) {
	tail, ok := strings.CutPrefix(pattern, "^")
	if !ok {
		return "", "", false
	}
	n := 0
	for n < len(tail) && tail[n] >= ' ' && tail[n] <= '~' && !strings.ContainsRune(`\.+*?()|[]{}^$`, rune(tail[n])) {
		n++
	}
	if n > 0 && n < len(tail) && strings.ContainsRune("*+?{", rune(tail[n])) {
		n-- // how often the last one stands there
	}
	text, rest = tail[:n], tail[n:]
	if n < minText || len(rest) > maxRest || strings.ContainsAny(rest, `\|()`) {
		return "", "", false
	}
	for i := range len(rest) {
		if rest[i] == '^' && (i == 0 || rest[i-1] != '[') || rest[i] == '$' && i != len(rest)-1 {
			return "", "", false
		}
	}
	return text, rest, true
}
