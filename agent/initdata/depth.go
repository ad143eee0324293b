// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"fmt"
)

const (
	// maxDepth is the bracket depth outside strings that the format needs, for [data]
	// or data = {…}.
	maxDepth = 1

	// maxDots is the number of dots outside strings in one line; data.x.y = "" would
	// already be a table where the format has a string.
	maxDots = 4
)

// checkDepth refuses trees that the format cannot have before the TOML library sees
// them: its time grows much faster than the nesting, and a few thousand levels fit
// easily into MaxSize. It follows the string rules of TOML 1.0 and judges nothing else.
func checkDepth(doc []byte) error {
	line, depth, dots := 1, 0, 0
	for len(doc) > 0 {
		c := doc[0]
		switch c {
		case '\n':
			line++
			dots = 0
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '.':
			dots++
		}
		if depth > maxDepth || dots > maxDots {
			return fmt.Errorf("nested too deeply at line %d", line)
		}
		size := 1
		switch c {
		case '#':
			if size = bytes.IndexByte(doc, '\n'); size < 0 {
				return nil
			}
		case '"', '\'':
			if size = stringSize(doc); size < 0 {
				return fmt.Errorf("unterminated string at line %d", line)
			}
			line += bytes.Count(doc[:size], []byte("\n"))
		}
		doc = doc[size:]
	}
	return nil
}

// stringSize returns the length of the string literal that doc starts with, quotes
// included, or -1 when it does not end.
func stringSize(doc []byte) int {
	quote := doc[0]
	triple := bytes.Repeat([]byte{quote}, 3)
	if !bytes.HasPrefix(doc, triple) {
		for i := 1; i < len(doc) && doc[i] != '\n'; i++ {
			switch {
			case doc[i] == quote:
				return i + 1
			case doc[i] == '\\' && quote == '"':
				i++
			}
		}
		return -1
	}
	for i := 3; i < len(doc); i++ {
		switch {
		case doc[i] == '\\' && quote == '"':
			i++
		case bytes.HasPrefix(doc[i:], triple):
			// One or two quotes may stand directly before the closing three.
			end := i + 3
			for n := 0; n < 2 && end < len(doc) && doc[end] == quote; n++ {
				end++
			}
			return end
		}
	}
	return -1
}
