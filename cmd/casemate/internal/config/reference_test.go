// SPDX-License-Identifier: Apache-2.0

package config

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// row is one of the tables of casemate.toml in docs/configuration.md.
var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (root|initdata|both) \\|")

// TestReference: docs/configuration.md lists the keys that are read, no others, and says rightly where each may stand.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		if _, twice := written[m[1]]; twice {
			t.Errorf("%s is explained twice", m[1])
		}
		written[m[1]] = m[2]
	}
	read := map[string]func(*Measured){}
	keys(reflect.TypeFor[Measured](), "", nil, read)
	for _, key := range slices.Sorted(maps.Keys(written)) {
		if _, ok := read[key]; !ok {
			t.Errorf("%s is explained and never read", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(read)) {
		where, ok := written[key]
		if !ok {
			t.Errorf("%s is read and not explained", key)
			continue
		}
		var m Measured
		read[key](&m)
		if rootOnly := m.tenantOnly() != nil; rootOnly != (where == "root") {
			t.Errorf("%s: the reference says %s, initdata with it: %v", key, where, m.tenantOnly())
		}
	}
}

// keys collects what a type reads from TOML, by its dotted name, with what sets it to something.
func keys(typ reflect.Type, prefix string, path []int, into map[string]func(*Measured)) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		name := prefix + strings.Split(field.Tag.Get("toml"), ",")[0]
		at := append(slices.Clone(path), i)
		if field.Type.Kind() == reflect.Struct {
			keys(field.Type, name+".", at, into)
			continue
		}
		for _, leaf := range leaves(field.Type, name) {
			into[leaf] = func(m *Measured) { set(reflect.ValueOf(m).Elem().FieldByIndex(at)) }
		}
	}
}

// leaves are the keys below one that holds tables or lists of them.
func leaves(typ reflect.Type, name string) []string {
	switch typ.Kind() {
	case reflect.Map:
		below := "NAME"
		if name == "image.layers" {
			below = "DIGEST"
		} else if name == "image.layers.DIGEST" {
			below = "ANNOTATION"
		}
		return leaves(typ.Elem(), name+"."+below)
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Struct {
			return leaves(typ.Elem(), name)
		}
	case reflect.Struct:
		var list []string
		for i := range typ.NumField() {
			field := typ.Field(i)
			list = append(list, leaves(field.Type, name+"."+strings.Split(field.Tag.Get("toml"), ",")[0])...)
		}
		return list
	}
	return []string{name}
}

// set gives a field a value that is not its zero one.
func set(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(int64(time.Minute))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem())
	default:
		panic("no value for " + v.Type().String())
	}
}
