// SPDX-License-Identifier: Apache-2.0

// Size says what each module costs in a linked program: the sizes of its
// symbols, read from a build that still has its symbol table.
//
//	size WITH-SYMBOLS STRIPPED
package main

import (
	"bufio"
	"cmp"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "size:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want the program with symbols and the stripped one, got %d arguments", len(args))
	}
	modules, err := linkedModules(args[0])
	if err != nil {
		return err
	}
	bytes, err := symbolBytes(args[0], modules)
	if err != nil {
		return err
	}
	stripped, err := os.Stat(args[1])
	if err != nil {
		return err
	}
	names := make([]string, 0, len(bytes))
	var counted uint64
	for name, n := range bytes {
		names = append(names, name)
		counted += n
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(bytes[b], bytes[a]) })
	for _, name := range names {
		fmt.Printf("%10d %s\n", bytes[name], name)
	}
	fmt.Printf("%10d (tables without a symbol: pc lines, type links, relocations)\n", uint64(stripped.Size())-min(counted, uint64(stripped.Size())))
	fmt.Printf("%10d %s\n", stripped.Size(), args[1])
	return nil
}

// linkedModules lists the paths of the modules in the program, longest first,
// so that the first match of a package path is its module.
func linkedModules(program string) ([]string, error) {
	out, err := exec.Command("go", "version", "-m", program).Output()
	if err != nil {
		return nil, fmt.Errorf("reading the modules of %s: %w", program, err)
	}
	var modules []string
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && (fields[0] == "dep" || fields[0] == "mod") {
			modules = append(modules, fields[1])
		}
	}
	slices.SortFunc(modules, func(a, b string) int { return len(b) - len(a) })
	return modules, nil
}

func symbolBytes(program string, modules []string) (map[string]uint64, error) {
	file, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", program, err)
	}
	defer file.Close()
	symbols, err := file.Symbols()
	if err != nil {
		return nil, fmt.Errorf("reading the symbols of %s: %w", program, err)
	}
	bytes := map[string]uint64{}
	for _, s := range symbols {
		if s.Size == 0 || int(s.Section) >= len(file.Sections) || file.Sections[s.Section].Type == elf.SHT_NOBITS {
			continue
		}
		bytes[owner(s.Name, modules)] += s.Size
	}
	return bytes, nil
}

// owner finds the module of a symbol such as "github.com/x/y/pkg.(*T).Method",
// "go:type.*github.com/x/y.T" or, with a plain package path, the standard library.
func owner(symbol string, modules []string) string {
	name := strings.TrimLeft(strings.TrimPrefix(symbol, "type:"), "*[]")
	for _, m := range modules {
		if strings.HasPrefix(name, m+".") || strings.HasPrefix(name, m+"/") {
			return m
		}
	}
	first, _, slash := strings.Cut(name, "/")
	switch {
	case slash && !strings.Contains(first, "."):
		return "standard library"
	case strings.Contains(name, "."):
		return "standard library"
	default:
		return "C and runtime tables"
	}
}
