// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

const (
	storeRuns = 3
	// diskBytes is the ext4 filesystem that the stores are compared on.
	diskBytes = 6 << 30
	// costBytes is what each image of a cost line unpacks to, however many layers
	// it has.
	costBytes = 128 << 20
	costFile  = 20 << 10
)

// pullStore measures the store of erofs images beside that of directories, on ext4: the benchmark images, then what
// layers and concurrent pulls cost.
func pullStore(ctx context.Context) (_ []figure, err error) {
	b, err := preparePull(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	disk, err := mountDisk(ctx, b.scratch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Unmount(disk, unix.MNT_DETACH)) }()
	var figures []figure
	for _, image := range []struct{ name, ref string }{{"gzip", b.gzip}, {"zstd", b.zstd}} {
		f, err := b.forms(ctx, "pull-erofs-"+image.name, disk, image.ref)
		if err != nil {
			return figures, err
		}
		figures = append(figures, f...)
	}
	costs, err := b.costs(ctx, disk)
	return append(figures, costs...), err
}

// mountDisk mounts an ext4 filesystem in a sparse file on the build's own disk.
func mountDisk(ctx context.Context, scratch string) (string, error) {
	file, dir := filepath.Join(cacheDir, "bench", "disk"), filepath.Join(scratch, "disk")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return "", err
	}
	if err := os.Truncate(file, diskBytes); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if _, err := fixture.Run(ctx, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0", file); err != nil {
		return "", err
	}
	if _, err := fixture.Run(ctx, "mount", "-o", "loop", file, dir); err != nil {
		return "", err
	}
	return dir, os.Remove(file) // the mount has it
}

// forms pulls images at once into each form of store in turn.
func (b *pullBench) forms(ctx context.Context, name, disk string, images ...string) ([]figure, error) {
	var erofs, directories, ratios []float64
	var peak, peakDirs float64
	for range storeRuns {
		dirs, dirsMiB, err := b.pullForm(ctx, "directories", disk, images)
		if err != nil {
			return nil, err
		}
		took, mib, err := b.pullForm(ctx, "erofs", disk, images)
		if err != nil {
			return nil, err
		}
		erofs, directories, ratios = append(erofs, took), append(directories, dirs), append(ratios, dirs/took)
		peak, peakDirs = max(peak, mib), max(peakDirs, dirsMiB)
	}
	ratio := median(ratios)
	figures := []figure{{
		name: name, value: median(erofs), unit: "s", peer: "directories", peerValue: median(directories),
		ratio: ratio, budget: "-", met: true,
	}}
	if len(images) == 1 {
		figures = append(figures, figure{
			name: name + "-memory", value: peak, unit: "MiB", peer: "directories", peerValue: peakDirs,
			ratio: peakDirs / peak, budget: fmt.Sprintf("<=%dMiB", maxRSSMiB), met: peak <= maxRSSMiB,
		})
	}
	return figures, nil
}

func (b *pullBench) pullForm(ctx context.Context, form, disk string, images []string) (seconds, mib float64, err error) {
	store := filepath.Join(disk, "store")
	defer os.RemoveAll(store)
	unix.Sync() // what the run before wrote is not this one's affair
	return b.pullChild(ctx, form, store, images)
}

// costs are the cost lines: one image of 1 to 64 layers, then 1 to 16 images of 4 layers each at once. All bytes of a
// line are the same and no two layers are.
func (b *pullBench) costs(ctx context.Context, disk string) ([]figure, error) {
	var figures []figure
	for _, n := range []int{1, 4, 16, 64} {
		refs, err := b.costImages(ctx, fmt.Sprintf("layers%d", n), 1, n, costBytes)
		if err != nil {
			return figures, err
		}
		f, err := b.forms(ctx, fmt.Sprintf("pull-layers-%d", n), disk, refs...)
		if err != nil {
			return figures, err
		}
		figures = append(figures, f[0])
	}
	refs, err := b.costImages(ctx, "pulls", 16, 4, costBytes/16)
	if err != nil {
		return figures, err
	}
	for _, n := range []int{1, 4, 16} {
		f, err := b.forms(ctx, fmt.Sprintf("pull-concurrent-%d", n), disk, refs[:n]...)
		if err != nil {
			return figures, err
		}
		figures = append(figures, f[0])
	}
	return figures, nil
}

// costImages makes images of n layers each and pushes them, once.
func (b *pullBench) costImages(ctx context.Context, name string, images, layers int, bytes int64) ([]string, error) {
	cache := filepath.Join(cacheDir, "bench")
	done := filepath.Join(cache, "cost-"+name)
	refs := make([]string, images)
	for i := range refs {
		refs[i] = fmt.Sprintf("%s/bench/cost:%s-%d", b.registry.Addr, name, i)
	}
	if _, err := os.Stat(done); err == nil {
		return refs, nil
	}
	work, err := os.MkdirTemp(b.scratch, "cost")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	for i, ref := range refs {
		image := fixture.Image{Config: v1.Config{Cmd: []string{"/bin/true"}}}
		for j := range layers {
			file := filepath.Join(work, strconv.Itoa(j)+".tar")
			if err := writeCostLayer(file, uint64(layers*i+j), name, bytes/int64(layers)); err != nil {
				return nil, err
			}
			image.Layers = append(image.Layers, file)
		}
		layout := filepath.Join(work, "layout"+strconv.Itoa(i))
		if err := fixture.WriteImage(layout, image); err != nil {
			return nil, err
		}
		if _, err := fixture.Run(ctx, "skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "oci:"+layout, "docker://"+ref); err != nil {
			return nil, err
		}
	}
	return refs, os.WriteFile(done, nil, 0o600)
}

// writeCostLayer writes files of words, which compress like text.
func writeCostLayer(file string, seed uint64, name string, bytes int64) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriter(f)
	w := tar.NewWriter(buffered)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := int64(0); i < bytes; i += costFile {
		content := make([]byte, 0, costFile+16)
		for len(content) < costFile {
			content = append(strconv.AppendUint(content, uint64(rng.ExpFloat64()*5000), 36), ' ')
		}
		path := fmt.Sprintf("%s/%d/%d/file%d", name, seed, i/costFile%16, i/costFile)
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: costFile, Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := w.Write(content[:costFile]); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), buffered.Flush())
}

// pullChild runs one process that pulls images into a store of the given form.
func (b *pullBench) pullChild(ctx context.Context, form, store string, images []string) (seconds, mib float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	args := append([]string{childPull, form, store, b.kekFile, b.registry.Addr}, images...)
	seconds, peak, printed, err := timed(exec.CommandContext(ctx, self, args...))
	if err != nil {
		return 0, 0, err
	}
	var before float64
	if _, err := fmt.Sscan(printed, &before); err != nil {
		return 0, 0, fmt.Errorf("reading the child's memory before the pull from %q: %w", printed, err)
	}
	return seconds, peak - before, nil
}
