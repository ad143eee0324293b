// SPDX-License-Identifier: Apache-2.0

package measured

import (
	"strings"
	"testing"
)

func digest(c string) string { return strings.Repeat(c, 96) }

// summary spells a difference for comparison: values with their causes, then inputs.
func summary(d Difference) string {
	var parts []string
	for _, v := range d.Values {
		text := v.Name + " " + v.Before[:min(1, len(v.Before))] + ">" + v.After[:min(1, len(v.After))]
		for _, c := range v.Causes {
			text += " " + c.Name
		}
		parts = append(parts, text)
	}
	text := strings.Join(parts, "; ") + " |"
	for _, c := range d.Inputs {
		text += " " + c.Name
		if c.Before == nil {
			text += "+"
		}
		if c.After == nil {
			text += "-"
		}
	}
	return text
}

func TestDiff(t *testing.T) {
	base := func() Result {
		return Result{Kind: TPM,
			Inputs: []Input{File("uki", []byte("1")), File("initrd", []byte("1")), Setting("boot", "disk")},
			Values: []Value{{"PCR 4", digest("1"), []string{"uki", "boot"}}, {"PCR 9", digest("2"), []string{"initrd"}}},
		}
	}
	for name, tt := range map[string]struct {
		change func(*Result)
		want   string
	}{
		"nothing":             {func(*Result) {}, " |"},
		"one artifact":        {func(r *Result) { r.Inputs[1], r.Values[1].Hex = File("initrd", []byte("2")), digest("3") }, "PCR 9 2>3 initrd | initrd"},
		"a setting":           {func(r *Result) { r.Inputs[2], r.Values[0].Hex = Setting("boot", "x"), digest("3") }, "PCR 4 1>3 boot | boot"},
		"no value shows it":   {func(r *Result) { r.Inputs[0] = File("uki", []byte("2")) }, " | uki"},
		"no artifact says it": {func(r *Result) { r.Values[0].Hex = digest("3") }, "PCR 4 1>3 |"},
		"two artifacts": {func(r *Result) {
			r.Inputs[0], r.Inputs[2], r.Values[0].Hex = File("uki", []byte("2")), Setting("boot", "x"), digest("3")
		}, "PCR 4 1>3 uki boot | uki boot"},
		"another input": {func(r *Result) {
			r.Inputs = append(r.Inputs, Setting("append", "a"))
			r.Values[1] = Value{"PCR 9", digest("3"), []string{"append", "initrd"}}
		}, "PCR 9 2>3 append | append+"},
		"an input less": {func(r *Result) {
			r.Inputs = r.Inputs[:2]
			r.Values[0] = Value{"PCR 4", digest("3"), []string{"uki"}}
		}, "PCR 4 1>3 boot | boot-"},
		"a value more":    {func(r *Result) { r.Values = append(r.Values, Value{"PCR 8", digest("3"), nil}) }, "PCR 8 >3 |"},
		"a value less":    {func(r *Result) { r.Values = r.Values[:1] }, "PCR 9 2> |"},
		"file to setting": {func(r *Result) { r.Inputs[1] = Setting("initrd", "none") }, " | initrd"},
	} {
		t.Run(name, func(t *testing.T) {
			after := base()
			tt.change(&after)
			d, err := Diff(base(), after)
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(d); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if d.Same() != (name == "nothing") {
				t.Errorf("same: %v", d.Same())
			}
		})
	}
	other := base()
	other.Kind = TDX
	if _, err := Diff(base(), other); err == nil {
		t.Error("results of two kinds are compared")
	}
}
