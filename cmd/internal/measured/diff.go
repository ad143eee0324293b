// SPDX-License-Identifier: Apache-2.0

package measured

import "fmt"

// Change is a value that differs between two results.
type Change struct {
	// Name is the value's.
	Name string `json:"name"`

	// Before and After are the values in hex, empty where there is none.
	Before string `json:"before,omitzero"`
	After  string `json:"after,omitzero"`

	// Causes are the inputs of the value that differ. With both values present and no
	// cause the two results were computed in different ways, or one was altered.
	Causes []InputChange `json:"causes"`
}

// InputChange is an input that differs. Before or After is nil where there is none.
type InputChange struct {
	Name   string `json:"name"`
	Before *Input `json:"before,omitzero"`
	After  *Input `json:"after,omitzero"`
}

// Difference is what differs between two results of one kind.
type Difference struct {
	// Inputs are all inputs that differ, whether or not a value shows it.
	Inputs []InputChange `json:"inputs"`

	// Values are the values that differ, in the order of the first result, then of the
	// second.
	Values []Change `json:"values"`
}

// Same reports whether neither inputs nor values differ.
func (d Difference) Same() bool { return len(d.Inputs) == 0 && len(d.Values) == 0 }

// Diff compares two results, which must be of one kind.
func Diff(before, after Result) (Difference, error) {
	if before.Kind != after.Kind {
		return Difference{}, fmt.Errorf("comparing results of kinds %s and %s", before.Kind, after.Kind)
	}
	d := Difference{Inputs: diffInputs(before.Inputs, after.Inputs), Values: []Change{}}
	changed := make(map[string]InputChange)
	for _, c := range d.Inputs {
		changed[c.Name] = c
	}
	later := make(map[string]Value)
	for _, v := range after.Values {
		later[v.Name] = v
	}
	for _, old := range before.Values {
		now := later[old.Name]
		delete(later, old.Name)
		if old.Hex != now.Hex {
			d.Values = append(d.Values, Change{old.Name, old.Hex, now.Hex, causes(changed, old.From, now.From)})
		}
	}
	for _, now := range after.Values {
		if _, ok := later[now.Name]; ok {
			d.Values = append(d.Values, Change{now.Name, "", now.Hex, causes(changed, nil, now.From)})
		}
	}
	return d, nil
}

// causes are the changed ones among the inputs of a value before and after.
func causes(changed map[string]InputChange, lists ...[]string) []InputChange {
	found := []InputChange{}
	seen := make(map[string]bool)
	for _, list := range lists {
		for _, name := range list {
			if c, ok := changed[name]; ok && !seen[name] {
				found = append(found, c)
			}
			seen[name] = true
		}
	}
	return found
}

func diffInputs(before, after []Input) []InputChange {
	changes := []InputChange{}
	later := make(map[string]Input)
	for _, in := range after {
		later[in.Name] = in
	}
	for _, old := range before {
		now, ok := later[old.Name]
		delete(later, old.Name)
		switch {
		case !ok:
			changes = append(changes, InputChange{old.Name, &old, nil})
		case !old.same(now):
			changes = append(changes, InputChange{old.Name, &old, &now})
		}
	}
	for _, now := range after {
		if _, ok := later[now.Name]; ok {
			changes = append(changes, InputChange{now.Name, nil, &now})
		}
	}
	return changes
}
