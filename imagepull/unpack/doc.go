// SPDX-License-Identifier: Apache-2.0

// Package unpack brings one image layer, a tar stream, into the form that overlayfs takes as a lower directory: beneath
// a directory (Layer), or as one file that holds the stream and an EROFS filesystem over it (Image).
//
// It implements the OCI image specification, layer.md (whiteouts, opaque whiteouts, attributes), over the archive
// formats that image tools write: v7, POSIX.1-1988 ustar, POSIX.1-2001 pax, and GNU tar's long names and sparse
// files (old GNU, pax 0.0, 0.1, 1.0). Extended attributes are the SCHILY.xattr. pax records.
//
// The bytes are hostile: they are parsed before any digest over them is known to be right. What tar
// implementations read differently is refused, so that nothing can be hidden from one of them: a size in a pax
// record that is not the size of the header, two sources of one name, repeated records, sizes on entries that carry
// no data, pax globals that change later entries, bytes behind the end of the archive, an archive without its end.
//
// Every path is walked component by component relative to open directories; the kernel never resolves more than
// one component, and none through a symbolic link. A symbolic link that the layer itself made on the way to an entry
// is followed as containerd, Docker and umoci do: with the layer's root as "/", so that neither an absolute target
// nor ".." leaves it. An entry name or hard link target with a ".." component is refused.
//
// Where layers in use differ from each other or from the letter, the decisions are:
//   - A whiteout speaks of lower layers only. Beside an entry of the same name in the same layer, before or behind
//     it, the entry stays; a directory then becomes opaque.
//   - A name written twice is replaced, as containerd does; a directory over a directory is merged.
//   - A hard link changes nothing of the file it links to, its own header's owner, mode and times are unused.
//   - A missing parent is made 0755, 0:0, at time 0, and named in Stats.ImpliedDirs: overlayfs would show these
//     attributes instead of the lower layer's.
//   - trusted.overlay.* and user.overlay.* are dropped (they steer overlayfs), as are security.selinux and
//     system.nfs4_acl (they belong to the machine that made the layer).
//   - An attribute that the filesystem cannot hold is counted in Stats.SkippedXattrs (user.* on tmpfs before Linux
//     6.6, user.* on symbolic links and devices), except those that guard access or make the program run:
//     security.capability and POSIX ACLs are then an error.
//   - Devices and FIFOs are made as they are. They are inert: the container's root is mounted nodev.
//   - A character device 0:0 is refused: on overlayfs it is a whiteout and no longer a device.
//   - Access time is set to the modification time.
//
// What differs between the two is a sink: it makes what the rules have decided. Every rule here is written once.
//
// Files: unpack.go (entry point, loop), stream.go (buffered input), header.go (one header block), pax.go (records),
// entry.go (headers joined to one entry), sparse.go, name.go (paths, whiteouts), tree.go (directories, links between
// them), write.go (entries to the sink), meta.go (attributes), sink.go; disk.go and settle.go (the sink that is a
// directory), sys.go (system calls); image.go and imagemeta.go (the sink that is an image), acl.go.
package unpack
