// SPDX-License-Identifier: Apache-2.0

// Package layer says, as annotations of an image's manifest, which device is a layer: one with an EROFS image and a
// dm-verity tree behind it, both bound by the tree's pin. Whoever signs the manifest signs the pins, so that a host may
// hand the devices over and nothing has to be downloaded. The same names and values can stand in measured
// configuration for an image whose manifest has none.
//
// The root hash is named as kata's snapshotters do (io.katacontainers.dm-verity.root-hash) for those who look for it
// there; what counts here is the pin, the whole tuple. Refused: a root hash without a pin, since a superblock of
// the host's would then complete it; two that differ; a tree that lies in its data; lists that are no list of paths.
package layer
