// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/casemate/casemate/agent/api/kata"
)

// The file types of st_mode.
const (
	modeType      = 0o170000
	modeRegular   = 0o100000
	modeDirectory = 0o040000
	modeSymlink   = 0o120000
)

// copyFileInput is the form in which policies read CopyFileRequest: the kind of file in words and the link's target
// as text, without the content. The target must be UTF-8.
func copyFileInput(m *kata.CopyFileRequest) (ast.Value, error) {
	b := &builder{values: MaxValues, bytes: MaxStrings}
	path, err := b.text(m.GetPath())
	if err != nil {
		return nil, err
	}
	kind, target := "Unknown", ast.Value(ast.Null{})
	switch m.GetFileMode() & modeType {
	case modeRegular:
		kind = "Regular"
	case modeDirectory:
		kind = "Directory"
	case modeSymlink:
		kind = "Symlink"
		if target, err = b.text(string(m.GetData())); err != nil {
			return nil, err
		}
	}
	pair := func(name string, v ast.Value) [2]*ast.Term { return [2]*ast.Term{ast.StringTerm(name), ast.NewTerm(v)} }
	integer := func(name string, n int64) [2]*ast.Term { return pair(name, number(strconv.FormatInt(n, 10))) }
	return ast.NewObject(
		pair("path", path), pair("file_type", ast.String(kind)), pair("symlink_target", target),
		integer("file_size", m.GetFileSize()), integer("file_mode", int64(m.GetFileMode())), integer("dir_mode", int64(m.GetDirMode())),
		integer("uid", int64(m.GetUid())), integer("gid", int64(m.GetGid())), integer("offset", m.GetOffset()),
	), nil
}
