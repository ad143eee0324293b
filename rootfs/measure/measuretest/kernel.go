// SPDX-License-Identifier: Apache-2.0

package measuretest

import "encoding/binary"

// Kernel makes an EFI program with the setup header of a Linux kernel for x86-64, boot
// protocol 2.15, and the text after it.
func Kernel(text string) []byte {
	const headers = 512
	setup := make([]byte, 0x300-headers)
	copy(setup[0x202-headers:], "HdrS")
	binary.LittleEndian.PutUint16(setup[0x206-headers:], 0x20f)
	setup[0x211-headers] = 1
	binary.LittleEndian.PutUint16(setup[0x236-headers:], 0x7f)
	return PE(nil, Section{".text", append(setup, text...)})
}
