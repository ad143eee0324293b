// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	// MaxValues bounds the values of one input: each field, element, key and each byte of a byte string is one. The
	// largest requests of the runtimes, WriteStdin with 32 KiB, have 40,000.
	MaxValues = 256 << 10
	// MaxStrings bounds the bytes of all strings of one input; the protocol's own limit is 4 MiB a message.
	MaxStrings = 4 << 20
	maxDepth   = 32
)

// badInput is a request that has no form for policies: too large, or not text where text is due.
type badInput struct{ what string }

func (e *badInput) Error() string { return "building policy input: " + e.what }

// inputOf renders a request as kata's agent does for its policies: every field present under its proto name (type
// becomes type_), enums and 64-bit integers as numbers, bytes as an array of numbers, unset messages and optional
// scalars as null. CopyFileRequest has a form of its own.
func inputOf(msg proto.Message) (ast.Value, error) {
	if copied, ok := msg.(*kata.CopyFileRequest); ok {
		return copyFileInput(copied)
	}
	b := &builder{values: MaxValues, bytes: MaxStrings}
	return b.message(msg.ProtoReflect(), 0)
}

// builder counts down what is left of the caps.
type builder struct{ values, bytes int }

func (b *builder) spend(values, bytes int) error {
	b.values -= values
	b.bytes -= bytes
	if b.values < 0 || b.bytes < 0 {
		return &badInput{fmt.Sprintf("more than %d values or %d bytes of strings", MaxValues, MaxStrings)}
	}
	return nil
}

func (b *builder) message(m protoreflect.Message, depth int) (ast.Value, error) {
	if !m.IsValid() {
		return ast.Null{}, nil
	}
	if depth > maxDepth {
		return nil, &badInput{"nested too deeply"}
	}
	fields := m.Descriptor().Fields()
	pairs := make([][2]*ast.Term, 0, fields.Len())
	for i := range fields.Len() {
		fd := fields.Get(i)
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
			continue
		}
		v, err := b.field(m, fd, depth)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, [2]*ast.Term{ast.InternedTerm(jsonName(string(fd.Name()))), ast.NewTerm(v)})
	}
	oneofs := m.Descriptor().Oneofs()
	for i := range oneofs.Len() {
		o := oneofs.Get(i)
		if o.IsSynthetic() {
			continue
		}
		v, err := b.oneof(m, o, depth)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, [2]*ast.Term{ast.InternedTerm(string(o.Name())), ast.NewTerm(v)})
	}
	return ast.NewObject(pairs...), b.spend(len(pairs), 0)
}

// oneof is null or an object with the one field that is set, whose name starts in upper case: in the agent that
// genpolicy was written for it is a variant of a Rust enum.
func (b *builder) oneof(m protoreflect.Message, o protoreflect.OneofDescriptor, depth int) (ast.Value, error) {
	fd := m.WhichOneof(o)
	if fd == nil {
		return ast.Null{}, nil
	}
	v, err := b.single(fd, m.Get(fd), depth)
	if err != nil {
		return nil, err
	}
	name := string(fd.Name())
	return ast.NewObject([2]*ast.Term{ast.StringTerm(strings.ToUpper(name[:1]) + name[1:]), ast.NewTerm(v)}), nil
}

// jsonName is the name under which policies read a field; type is a keyword in the language of the names' origin.
func jsonName(name string) string {
	if name == "type" {
		return "type_"
	}
	return name
}

func (b *builder) field(m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) (ast.Value, error) {
	switch {
	case fd.IsList():
		list := m.Get(fd).List()
		if err := b.spend(list.Len(), 0); err != nil {
			return nil, err
		}
		terms := make([]*ast.Term, list.Len())
		for i := range list.Len() {
			v, err := b.single(fd, list.Get(i), depth)
			if err != nil {
				return nil, err
			}
			terms[i] = ast.NewTerm(v)
		}
		return ast.NewArray(terms...), nil
	case fd.IsMap():
		return b.table(fd, m.Get(fd).Map(), depth)
	case fd.HasPresence() && !m.Has(fd):
		return ast.Null{}, nil
	}
	return b.single(fd, m.Get(fd), depth)
}

func (b *builder) table(fd protoreflect.FieldDescriptor, table protoreflect.Map, depth int) (ast.Value, error) {
	if err := b.spend(2*table.Len(), 0); err != nil {
		return nil, err
	}
	pairs := make([][2]*ast.Term, 0, table.Len())
	var failed error
	table.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		key, err := b.text(k.String()) // JSON's keys are strings, whatever the map's are
		if err != nil {
			failed = err
			return false
		}
		value, err := b.single(fd.MapValue(), v, depth)
		if err != nil {
			failed = err
			return false
		}
		pairs = append(pairs, [2]*ast.Term{ast.NewTerm(key), ast.NewTerm(value)})
		return true
	})
	if failed != nil {
		return nil, failed
	}
	return ast.NewObject(pairs...), nil
}

func (b *builder) single(fd protoreflect.FieldDescriptor, v protoreflect.Value, depth int) (ast.Value, error) {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return b.message(v.Message(), depth+1)
	case protoreflect.StringKind:
		return b.text(v.String())
	case protoreflect.BytesKind:
		return b.octets(v.Bytes())
	case protoreflect.BoolKind:
		return ast.Boolean(v.Bool()), nil
	case protoreflect.EnumKind:
		return number(strconv.Itoa(int(v.Enum()))), nil
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return number(strconv.FormatUint(v.Uint(), 10)), nil
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		f := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return ast.Null{}, nil // JSON has no such numbers
		}
		return number(strconv.FormatFloat(f, 'g', -1, 64)), nil
	default:
		return number(strconv.FormatInt(v.Int(), 10)), nil
	}
}

func number(s string) ast.Value { return ast.Number(s) }

func (b *builder) text(s string) (ast.Value, error) {
	if !utf8.ValidString(s) {
		return nil, &badInput{"a string that is not UTF-8"}
	}
	return ast.String(s), b.spend(0, len(s))
}

func (b *builder) octets(data []byte) (ast.Value, error) {
	if err := b.spend(len(data), 0); err != nil {
		return nil, err
	}
	terms := make([]*ast.Term, len(data))
	for i, c := range data {
		terms[i] = ast.InternedTerm(int(c))
	}
	return ast.NewArray(terms...), nil
}
