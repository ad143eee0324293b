// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
)

const (
	chipDir     = "/etc/casemate/chip"
	initdataDoc = "/etc/casemate/initdata.toml"
	imageDir    = "/images/busybox"
	resolver    = "/etc/resolv.conf"
)

// podFiles makes a guest that serves pods: a measured configuration with the test signer in place of a SEV-SNP chip,
// initdata with the tenant's policy, whose digest the reports carry in HOST_DATA, and an image to run. registry is the
// host[:port] of one that is spoken to over plain HTTP.
func podFiles(t *testing.T, img v1.Image, rego, registry string) []File {
	t.Helper()
	raw, err := initdata.Encode(evidence.SHA256, map[string]string{
		"policy.rego":   rego,
		"casemate.toml": fmt.Sprintf("workload = \"pod\"\n\n[image]\npolicy = %q\ninsecure_registries = [%q]\n", `{"default": [{"type": "insecureAcceptAnything"}]}`, registry),
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	chip := filepath.Join(t.TempDir(), "chip")
	params := snptest.Params{HostData: fmt.Sprintf("%x", d.HostData()), TCB: snptest.TCB{Bootloader: 4, SNP: 24, Microcode: 219}}
	if _, err := snptest.Create(chip, params); err != nil {
		t.Fatal(err)
	}
	files := []File{
		{Path: "/etc/casemate/casemate.toml", Text: fmt.Sprintf("initdata = %q\n\n[testsnp]\ndir = %q\n", initdataDoc, chipDir), Perm: 0o644},
		{Path: initdataDoc, Text: string(raw), Perm: 0o644},
		{Path: resolver, Perm: 0o644}, // the place of the name servers
	}
	files = append(files, tree(t, chip, chipDir)...)
	return append(files, tree(t, writeLayout(t, img), imageDir)...)
}

// busyboxImage is an image of one layer.
func busyboxImage(t *testing.T) v1.Image {
	t.Helper()
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	headers := []*tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))},
	}
	for _, name := range []string{"sh", "cat", "grep", "ls", "hostname", "tail", "head", "mkdir", "sleep", "stty"} {
		headers = append(headers, &tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"})
	}
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write(program); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(b.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Cmd, config.Config.Env = []string{"/bin/sh"}, []string{"PATH=/bin"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return mutate.ConfigMediaType(img, types.OCIConfigJSON)
}

// writeLayout writes an OCI layout with one image.
func writeLayout(t *testing.T, img v1.Image) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tree lists the files below dir on the host for the place guest in the image.
func tree(t *testing.T, dir, guest string) []File {
	t.Helper()
	var files []File
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, File{Path: guest + strings.TrimPrefix(path, dir), HostPath: path, Perm: 0o644})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
