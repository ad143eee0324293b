// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReference: docs/configuration.md lists the keys of a registration, and no others.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## A registration\n")
	if !ok {
		t.Fatal("no section about registrations")
	}
	var written []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		written = append(written, m[1])
	}
	read := keys(reflect.TypeFor[Registration](), "")
	slices.Sort(written)
	slices.Sort(read)
	if !slices.Equal(written, read) {
		t.Errorf("explained:\n%s\nread:\n%s", strings.Join(written, "\n"), strings.Join(read, "\n"))
	}
}

// keys are what a type reads from TOML, by dotted names.
func keys(typ reflect.Type, name string) []string {
	switch typ.Kind() {
	case reflect.Pointer:
		return keys(typ.Elem(), name)
	case reflect.Map:
		below := "PRODUCT"
		if typ == reflect.TypeFor[PCRs]() {
			below = "REGISTER"
		}
		return keys(typ.Elem(), name+"."+below)
	case reflect.Struct:
		var list []string
		for i := range typ.NumField() {
			field := typ.Field(i)
			key, _, _ := strings.Cut(field.Tag.Get("toml"), ",")
			list = append(list, keys(field.Type, strings.TrimPrefix(name+"."+key, "."))...)
		}
		return list
	}
	return []string{name}
}
