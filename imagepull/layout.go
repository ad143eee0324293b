// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// layout reads an OCI image layout directory (OCI image-spec, image-layout.md).
// Its files are as hostile as a registry's answers; they are opened beneath the
// directory.
type layout struct {
	dir  *os.Root
	tag  string
	list []descriptor // of index.json
	tags []string     // parallel to list, "" for none
}

func openLayout(dir, tag string) (*layout, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening OCI layout: %w", err)
	}
	l := &layout{dir: root, tag: tag}
	if err := l.readIndex(); err != nil {
		root.Close()
		return nil, fmt.Errorf("opening OCI layout %s: %w", dir, err)
	}
	return l, nil
}

// Close releases the directory.
func (l *layout) Close() { l.dir.Close() }

func (l *layout) readIndex() error {
	raw, err := l.read("oci-layout")
	if err != nil {
		return err
	}
	var version struct {
		V string `json:"imageLayoutVersion"`
	}
	if err := decode(raw, &version); err != nil {
		return err
	}
	if version.V != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%w: layout version: got %.20q, want %q", ErrUnsupported, version.V, ocispec.ImageLayoutVersion)
	}
	if raw, err = l.read(ocispec.ImageIndexFile); err != nil {
		return err
	}
	doc, err := parseDocument(raw, v1.Hash{})
	if err != nil {
		return err
	}
	if doc.index == nil {
		return fmt.Errorf("%w: index.json is not an index", ErrManifest)
	}
	for _, d := range doc.index {
		l.list = append(l.list, d)
		l.tags = append(l.tags, d.annotations[ocispec.AnnotationRefName])
	}
	return nil
}

func (l *layout) find(tag string) (descriptor, error) {
	var found []descriptor
	for i, d := range l.list {
		if l.tags[i] == tag || tag == "" {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return descriptor{}, fmt.Errorf("%w: tag %.128q, the layout has %.300q", ErrNotFound, tag, l.tags)
	case tag == "":
		return descriptor{}, fmt.Errorf("%w: name one of the layout's tags: %.300q", ErrReference, l.tags)
	}
	return descriptor{}, fmt.Errorf("%w: tag %.128q occurs %d times", ErrManifest, tag, len(found))
}

func (l *layout) root(ctx context.Context) ([]byte, *v1.Hash, error) {
	d, err := l.find(l.tag)
	if err != nil {
		return nil, nil, err
	}
	raw, err := l.document(ctx, d.digest)
	return raw, &d.digest, err
}

func (l *layout) tagged(ctx context.Context, tag string) ([]byte, error) {
	d, err := l.find(tag)
	if err != nil {
		return nil, err
	}
	raw, err := l.document(ctx, d.digest)
	if err != nil {
		return nil, err
	}
	return raw, verifyBytes(raw, d.digest)
}

func (l *layout) document(_ context.Context, digest v1.Hash) ([]byte, error) {
	return l.read(blobPath(digest))
}

// referrers: a layout has them under tags only.
func (l *layout) referrers(context.Context, v1.Hash) ([]byte, error) {
	return nil, fmt.Errorf("%w: a layout has no referrers index", ErrNotFound)
}

func (l *layout) blob(_ context.Context, digest v1.Hash, offset int64) (io.ReadCloser, int64, int64, error) {
	f, size, err := l.open(blobPath(digest))
	if err != nil {
		return nil, 0, 0, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, 0, 0, err
	}
	return f, offset, size - offset, nil
}

func blobPath(digest v1.Hash) string {
	return "blobs/" + digest.Algorithm + "/" + digest.Hex
}

func (l *layout) read(path string) ([]byte, error) {
	f, size, err := l.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxDocument {
		return nil, fmt.Errorf("%w: %s has %d bytes, want at most %d", ErrTooLarge, path, size, maxDocument)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(raw) > maxDocument {
		return nil, fmt.Errorf("%w: %s, want at most %d bytes", ErrTooLarge, path, maxDocument)
	}
	return raw, nil
}

func (l *layout) open(path string) (*os.File, int64, error) {
	// A device must be refused before it is opened.
	info, err := l.dir.Stat(path)
	if err := checkRegular(path, info, err); err != nil {
		return nil, 0, err
	}
	// What it is by now need not be what it was: a FIFO is opened without waiting
	// for who writes to it, and refused.
	f, err := l.dir.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err = f.Stat()
	if err := checkRegular(path, info, err); err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// checkRegular takes what Stat returned.
func checkRegular(path string, info fs.FileInfo, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s", ErrNotFound, path)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s is not a regular file", ErrManifest, path)
	}
	return nil
}
