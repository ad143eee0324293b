// SPDX-License-Identifier: Apache-2.0

// Package layers makes of an image's layers the devices that a host can hand to guests in place of a download: an
// EROFS image of each layer, as guests make it of a layer that they pull (package unpack), and a dm-verity superblock
// and tree behind it, in one file. The new image is the old one with the pins as annotations of its layers (package
// verity/layer), so that who signs its manifest signs them.
//
// The same image always gives the same bytes: salt, UUIDs and all follow from the DiffID. What is read is checked as in
// a pull: blob digest, one end of the compressed stream, DiffID, the archive to its last byte.
//
// Refused: encrypted layers, whose plain content would lie with the host; layers of an unknown media type; images
// without layers.
package layers
