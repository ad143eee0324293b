// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

const (
	// MaxOps bounds the operations of one decision.
	MaxOps = 256
	// MaxStateKeys bounds the state's top-level keys: a few, and one for each container.
	MaxStateKeys = 4096
)

// op is one JSON-patch operation (RFC 6902) on the state.
type op struct {
	kind  string // add, remove, replace or test
	path  []string
	value any
}

// parseOps reads the ops member of a policy's result. Paths must lie beneath /pstate: the rest of the data document
// is the tenant's. move and copy are refused; no generated policy uses them.
func parseOps(v any) ([]op, error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		return nil, fmt.Errorf("reading ops: want an array")
	}
	if len(list) > MaxOps {
		return nil, fmt.Errorf("reading ops: %d of them, at most %d allowed", len(list), MaxOps)
	}
	ops := make([]op, 0, len(list))
	for i, item := range list {
		fields, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("reading ops[%d]: want an object", i)
		}
		kind, _ := fields["op"].(string)
		path, _ := fields["path"].(string)
		value, given := fields["value"]
		if !slices.Contains([]string{"add", "remove", "replace", "test"}, kind) || given == (kind == "remove") {
			return nil, fmt.Errorf("reading ops[%d]: want add, replace or test with a value, or remove without", i)
		}
		rest, ok := strings.CutPrefix(path, "/"+stateName+"/")
		if !ok {
			return nil, fmt.Errorf("reading ops[%d]: path must be beneath /%s", i, stateName)
		}
		steps := strings.Split(rest, "/")
		for j, s := range steps {
			steps[j] = strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
		}
		ops = append(ops, op{kind, steps, value})
	}
	return ops, nil
}

// apply returns the state after ops, all of them or an error. state stays as it is.
func apply(state map[string]any, ops []op) (map[string]any, error) {
	var next any = state
	for i, o := range ops {
		var err error
		if next, err = patch(next, o, o.path); err != nil {
			return nil, fmt.Errorf("applying ops[%d]: %w", i, err)
		}
	}
	result := next.(map[string]any) // patch keeps the kind of what it changes, and every path has a step
	if len(result) > MaxStateKeys {
		return nil, fmt.Errorf("applying ops: %d keys in the state, at most %d allowed", len(result), MaxStateKeys)
	}
	return result, nil
}

// patch applies o at path below v and returns a changed copy.
func patch(v any, o op, path []string) (any, error) {
	switch parent := v.(type) {
	case map[string]any:
		return patchObject(parent, o, path)
	case []any:
		return patchArray(parent, o, path)
	}
	return nil, fmt.Errorf("%s: no object or array at the path", o.kind)
}

func patchObject(parent map[string]any, o op, path []string) (any, error) {
	key := path[0]
	old, exists := parent[key]
	if !exists && (len(path) > 1 || o.kind != "add") {
		return nil, fmt.Errorf("%s: nothing at the path", o.kind)
	}
	next := maps.Clone(parent)
	switch {
	case len(path) > 1:
		child, err := patch(old, o, path[1:])
		if err != nil {
			return nil, err
		}
		next[key] = child
	case o.kind == "remove":
		delete(next, key)
	case o.kind == "test":
		if !reflect.DeepEqual(old, o.value) {
			return nil, fmt.Errorf("test: another value at the path")
		}
	default:
		next[key] = o.value
	}
	return next, nil
}

func patchArray(parent []any, o op, path []string) (any, error) {
	last := len(path) == 1
	if last && o.kind == "add" && path[0] == "-" {
		return append(slices.Clone(parent), o.value), nil
	}
	limit := len(parent)
	if last && o.kind == "add" {
		limit++ // an element may be added behind the last
	}
	i, err := strconv.Atoi(path[0])
	if err != nil || i < 0 || i >= limit || strconv.Itoa(i) != path[0] {
		return nil, fmt.Errorf("%s: no such element", o.kind)
	}
	next := slices.Clone(parent)
	switch {
	case !last:
		next[i], err = patch(parent[i], o, path[1:])
		return next, err
	case o.kind == "add":
		return slices.Insert(next, i, o.value), nil
	case o.kind == "remove":
		return slices.Delete(next, i, i+1), nil
	case o.kind == "test":
		if !reflect.DeepEqual(parent[i], o.value) {
			return nil, fmt.Errorf("test: another value at the path")
		}
	default:
		next[i] = o.value
	}
	return next, nil
}

// revert returns now without what the step from before to after did, key by key. A key that was changed again since
// stays: the later decision stands.
func revert(now, before, after map[string]any) map[string]any {
	next := maps.Clone(now)
	for key := range union(before, after) {
		old, had := before[key]
		made, has := after[key]
		if had == has && reflect.DeepEqual(old, made) {
			continue // not touched
		}
		current, exists := now[key]
		if exists != has || !reflect.DeepEqual(current, made) {
			continue
		}
		if had {
			next[key] = old
		} else {
			delete(next, key)
		}
	}
	return next
}

func union(a, b map[string]any) map[string]any {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}
