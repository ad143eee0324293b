// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/casemate/casemate/cmd/internal/fixture"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/imagepull/trust"
	"github.com/casemate/casemate/keyprovider"
)

const (
	// childPull is the verb under which this program runs one pull of its own, so
	// that time and memory are those of a process that does nothing else.
	childPull = "__pull"
	pullRuns  = 5
	cacheDir  = "build/cache"
	benchKey  = "kbs:///bench/image/kek"
	maxRSSMiB = 64
)

// pullBench is an encrypted image in a real registry and what both sides need to
// open it.
type pullBench struct {
	registry *fixture.Registry
	gzip     string // encrypted by casemate-build with the key in kekFile
	zstd     string // the same layers recompressed
	kekFile  string
	// peerImage has the same layers, encrypted by skopeo for the key in peerKey.
	peerImage, peerKey string
	scratch            string // on tmpfs
}

// pullGzip measures the pull of an encrypted gzip image of three layers to tmpfs,
// beside skopeo and umoci, with the peak memory of both.
func pullGzip(ctx context.Context) ([]figure, error) {
	b, err := preparePull(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	return b.beside(ctx, "pull-gzip", b.gzip, 5)
}

// pullZstd measures the same image in zstd, which the peers' tools of Debian do
// not decrypt: beside what they make of the gzip image.
func pullZstd(ctx context.Context) ([]figure, error) {
	b, err := preparePull(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	return b.beside(ctx, "pull-zstd", b.zstd, 10)
}

// beside pulls image and the peers' own in turn.
func (b *pullBench) beside(ctx context.Context, name, image string, budget float64) ([]figure, error) {
	var ours, peers, ratios []float64
	var ourRSS, peerRSS float64
	for range pullRuns {
		took, rss, err := b.pullOurs(ctx, image)
		if err != nil {
			return nil, err
		}
		peerTook, peerMem, err := b.pullPeer(ctx)
		if err != nil {
			return nil, err
		}
		ours, peers, ratios = append(ours, took), append(peers, peerTook), append(ratios, peerTook/took)
		ourRSS, peerRSS = max(ourRSS, rss), max(peerRSS, peerMem)
	}
	ratio := median(ratios)
	return []figure{
		{
			name: name, value: median(ours), unit: "s", peer: "skopeo+umoci", peerValue: median(peers),
			ratio: ratio, budget: fmt.Sprintf("ratio>=%.0f", budget), met: ratio >= budget,
		},
		{
			// What the pull adds to the process that pulls, beside all that the peers take.
			name: "pull-memory", value: ourRSS, unit: "MiB", peer: "skopeo+umoci-whole", peerValue: peerRSS,
			ratio: peerRSS / ourRSS, budget: fmt.Sprintf("<=%dMiB", maxRSSMiB), met: ourRSS <= maxRSSMiB,
		},
	}, nil
}

func preparePull(ctx context.Context) (_ *pullBench, err error) {
	cache := filepath.Join(cacheDir, "bench")
	b := &pullBench{kekFile: filepath.Join(cache, "kek"), peerKey: filepath.Join(cache, "peer.key")}
	if b.scratch, err = os.MkdirTemp("/dev/shm", "casemate-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.registry, err = fixture.StartRegistry(ctx, filepath.Join(cache, "registry"), ""); err != nil {
		return nil, err
	}
	b.gzip, b.zstd, b.peerImage = b.registry.Addr+"/bench/app:gzip", b.registry.Addr+"/bench/app:zstd", b.registry.Addr+"/bench/app:peer"
	layout := filepath.Join(cache, "layout")
	done := filepath.Join(layout, "done-3") // changes with what the fixture holds
	if _, err := os.Stat(done); err == nil {
		return b, nil
	}
	if err := os.RemoveAll(layout); err != nil {
		return nil, err
	}
	layers, err := benchLayers(ctx, cache)
	if err != nil {
		return nil, err
	}
	if err := fixture.WriteImage(layout, fixture.Image{Layers: layers, Config: v1.Config{Cmd: []string{"/bin/true"}}}); err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.kekFile, []byte("a key of 32 bytes for benchmarks"), 0o600); err != nil {
		return nil, err
	}
	recompressed := filepath.Join(cache, "layout-zstd")
	if err := os.RemoveAll(recompressed); err != nil {
		return nil, err
	}
	if _, err := fixture.Run(ctx, "skopeo", "--insecure-policy", "copy", "--format", "oci", "--dest-compress-format", "zstd", "oci:"+layout, "oci:"+recompressed+":app"); err != nil {
		return nil, err
	}
	for image, from := range map[string]string{b.gzip: layout, b.zstd: recompressed} {
		_, err = fixture.Run(ctx, "bin/casemate-build", "encrypt", "oci:"+from, "docker://"+image,
			"--key-id", benchKey, "--kek-file", b.kekFile, "--insecure-registry", b.registry.Addr)
		if err != nil {
			return nil, err
		}
	}
	if err := b.encryptForPeer(ctx, layout); err != nil {
		return nil, err
	}
	return b, os.WriteFile(done, nil, 0o600)
}

func (b *pullBench) encryptForPeer(ctx context.Context, layout string) error {
	public := b.peerKey + ".pub"
	for _, args := range [][]string{
		{"openssl", "genrsa", "-out", b.peerKey, "2048"},
		{"openssl", "rsa", "-in", b.peerKey, "-pubout", "-out", public},
		{"skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "--encryption-key", "jwe:" + public, "oci:" + layout, "docker://" + b.peerImage},
	} {
		if _, err := fixture.Run(ctx, args[0], args[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// benchLayers are three layers of real files, more than 600 MB unpacked: Debian's
// root file system, the Go distribution, and this machine's gcc, headers and Python.
func benchLayers(ctx context.Context, cache string) ([]string, error) {
	debian, err := fixture.DebianTar(ctx, cacheDir)
	if err != nil {
		return nil, err
	}
	goTar, libTar := filepath.Join(cache, "go.tar"), filepath.Join(cache, "lib.tar")
	tar := []string{"--numeric-owner", "--owner=0", "--group=0", "--sort=name", "--mtime=@0"}
	root, err := fixture.Run(ctx, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	if _, err := fixture.Run(ctx, "tar", append(tar, "-C", strings.TrimSpace(string(root)), "--transform=s,^\\.,opt/go,", "-cf", goTar, ".")...); err != nil {
		return nil, err
	}
	_, err = fixture.Run(ctx, "tar", append(tar, "-C", "/usr", "--transform=s,^,opt/,", "-cf", libTar, "include", "lib/gcc", "lib/python3", "lib/python3.11")...)
	return []string{debian, goTar, libTar}, err
}

func (b *pullBench) close() {
	if b.registry != nil {
		b.registry.Close()
	}
	_ = os.RemoveAll(b.scratch)
}

// timed runs a program and returns its seconds, its peak MiB and what it printed. The peak is read from
// /proc while it runs: what wait4 reports includes this process, which it came from.
func timed(cmd *exec.Cmd) (seconds, mib float64, printed string, err error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, "", err
	}
	ended := make(chan struct{})
	peak := make(chan float64)
	go func() {
		var highest float64
		for {
			select {
			case <-ended:
				peak <- highest
				return
			case <-time.After(10 * time.Millisecond):
				highest = max(highest, memory(cmd.Process.Pid, "VmHWM"))
			}
		}
	}()
	err = cmd.Wait()
	seconds = time.Since(start).Seconds()
	close(ended)
	mib = <-peak
	if err != nil {
		return 0, 0, "", fmt.Errorf("running %s: %w: %s", cmd.Path, err, out.Bytes())
	}
	return seconds, mib, out.String(), nil
}

// memory is a line of /proc/PID/status in MiB, 0 once the process has ended.
func memory(pid int, field string) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, field+": %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	return 0
}

func (b *pullBench) pullOurs(ctx context.Context, image string) (seconds, mib float64, err error) {
	store := filepath.Join(b.scratch, "ours")
	defer os.RemoveAll(store)
	return b.pullChild(ctx, imagepull.FormAuto.String(), store, []string{image})
}

// pullPeer opens the same layers, encrypted for an RSA key: Debian's skopeo knows no
// key providers. The work is the same but for one unwrapped key.
func (b *pullBench) pullPeer(ctx context.Context) (seconds, mib float64, err error) {
	dir := filepath.Join(b.scratch, "peer")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	layout := filepath.Join(dir, "layout")
	pull := exec.CommandContext(ctx, "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false",
		"--decryption-key", b.peerKey, "docker://"+b.peerImage, "oci:"+layout+":app")
	first, firstMiB, _, err := timed(pull)
	if err != nil {
		return 0, 0, err
	}
	second, secondMiB, _, err := timed(exec.CommandContext(ctx, "umoci", "unpack", "--image", layout+":app", filepath.Join(dir, "bundle")))
	return first + second, max(firstMiB, secondMiB), err
}

// staticKey is a key source without a relying party: the pull alone is measured.
type staticKey string

func (s staticKey) Key(context.Context, string) ([]byte, error) { return os.ReadFile(string(s)) }

// pullOnce is the child: pulls into one empty store, of the form that is named, at once. It prints its memory before.
func pullOnce(ctx context.Context, args []string) error {
	if len(args) < 5 {
		return fmt.Errorf("want form, store, key file, registry and images, got %d arguments", len(args))
	}
	policy, err := trust.ParsePolicy([]byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))
	if err != nil {
		return err
	}
	config := imagepull.Config{
		Store: args[1], Policy: policy, Insecure: []string{args[3]},
		Unwrapper: &keyprovider.Unwrapper{Keys: staticKey(args[2])},
	}
	for _, form := range []imagepull.Form{imagepull.FormDirectories, imagepull.FormErofs} {
		if args[0] == form.String() {
			config.Form = form
		}
	}
	puller, err := imagepull.New(config)
	if err != nil {
		return err
	}
	fmt.Println(memory(os.Getpid(), "VmRSS"))
	g, gctx := errgroup.WithContext(ctx)
	for _, image := range args[4:] {
		g.Go(func() error {
			_, err := puller.Pull(gctx, image)
			return err
		})
	}
	return errors.Join(g.Wait(), puller.Close())
}
