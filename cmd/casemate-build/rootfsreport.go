// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/casemate/casemate/rootfs/image"
)

// artifact is one file that was made.
type artifact struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// holdings are what a tree weighs.
type holdings struct {
	Files        int        `json:"files"`
	ProgramBytes int64      `json:"program_bytes"`
	Modules      int        `json:"modules"`
	ModuleBytes  int64      `json:"module_bytes"`
	OtherBytes   int64      `json:"other_bytes"`
	List         []heldFile `json:"list,omitempty"`
}

type heldFile struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// writeArtifact makes a file in one step: with an error there is none, and readers
// see the old or the new one.
func writeArtifact(name string, write func(*os.File) error) (artifact, error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return artifact{}, err
	}
	a := artifact{Path: name}
	err = write(f)
	if err == nil {
		a.Bytes, a.SHA256, err = measureFile(f)
	}
	err = errors.Join(err, f.Chmod(publicFileMode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return artifact{}, errors.Join(err, os.Remove(f.Name()))
	}
	return a, nil
}

func measureFile(f *os.File) (int64, string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, "", err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	return n, hex.EncodeToString(h.Sum(nil)), err
}

func weigh(t *image.Tree, list bool) (holdings, error) {
	var c holdings
	for _, e := range t.Entries() {
		size, err := e.Size()
		if err != nil {
			return holdings{}, err
		}
		if e.Kind != image.File {
			continue
		}
		c.Files++
		switch {
		case e.Path == image.Program || e.Path == "/init":
			c.ProgramBytes += size
		case strings.HasPrefix(e.Path, "/lib/modules/"):
			c.Modules, c.ModuleBytes = c.Modules+1, c.ModuleBytes+size
		default:
			c.OtherBytes += size
		}
		if list {
			c.List = append(c.List, heldFile{e.Path, size})
		}
	}
	return c, nil
}

func (c holdings) print(w io.Writer) {
	fmt.Fprintf(w, "holds    %d files: program %d bytes, %d modules %d bytes, the rest %d bytes\n",
		c.Files, c.ProgramBytes, c.Modules, c.ModuleBytes, c.OtherBytes)
	for _, f := range c.List {
		fmt.Fprintf(w, "  %10d %s\n", f.Bytes, f.Path)
	}
}

func (a artifact) print(w io.Writer) {
	fmt.Fprintf(w, "wrote    %s (%d bytes)\nsha256   %s\n", a.Path, a.Bytes, a.SHA256)
}
