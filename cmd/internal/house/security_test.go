// SPDX-License-Identifier: Apache-2.0

package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/security.md names must exist where it says.
func TestSecurityRulesNameTheirTests(t *testing.T) {
	text, err := os.ReadFile("../../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	token := regexp.MustCompile("`([a-z][a-z0-9/-]+)`|\\b(Test[A-Za-z0-9]+)\\b")
	rules := regexp.MustCompile(`(?m)^\d+\. `).FindAllIndex(text, -1)
	if len(rules) != 30 {
		t.Errorf("docs/security.md has %d rules, want 30", len(rules))
	}
	found := 0
	for _, paragraph := range regexp.MustCompile(`(?s)\*Test:\*.*?(?:\n\n|\n\d+\. |$)`).FindAllString(string(text), -1) {
		dir := ""
		for _, m := range token.FindAllStringSubmatch(paragraph, -1) {
			if m[1] != "" {
				dir = m[1]
				continue
			}
			found++
			if !hasTest(t, filepath.Join("../../..", dir), m[2]) {
				t.Errorf("docs/security.md names %s in %s, which has no such test", m[2], dir)
			}
		}
	}
	if found < 20 {
		t.Errorf("docs/security.md names %d tests: the pattern no longer finds them", found)
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+name+"(") {
			return true
		}
	}
	return false
}

// What must never ship stands behind its tag: without the tag it is not part of any
// program of ours.
func TestTestOnlyCode(t *testing.T) {
	for _, tag := range []string{"testsnp", "sample", "vmtest", "debug"} {
		t.Run(tag, func(t *testing.T) {
			files := taggedFiles(t, tag)
			if len(files) == 0 {
				t.Fatalf("no file stands behind the tag %s: nothing is tested here", tag)
			}
			for _, file := range files {
				for _, p := range list(t, "-deps", "./cmd/casemate", "./cmd/keybroker", "./cmd/casemate-build") {
					for _, f := range p.GoFiles {
						if filepath.Join(p.Dir, f) == file {
							t.Errorf("%s is linked without its tag %s", file, tag)
						}
					}
				}
			}
		})
	}
}

func taggedFiles(t *testing.T, tag string) []string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, top := range []string{"agent", "cmd", "rootfs", "storage", "imagepull", "keyprovider"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.Contains(string(text), "\n//go:build "+tag+"\n") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}
