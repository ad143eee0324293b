// SPDX-License-Identifier: Apache-2.0

// Printpcrs is the first process of a guest under test: it prints the registers of
// the TPM and powers off.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

func main() {
	if err := os.MkdirAll("/sys", 0o755); err != nil {
		fmt.Println("ERROR", err)
	}
	if err := syscall.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		fmt.Println("ERROR mounting sysfs:", err)
	}
	for _, bank := range []string{"sha256", "sha384"} {
		for i := range 16 {
			value, err := os.ReadFile(fmt.Sprintf("/sys/class/tpm/tpm0/pcr-%s/%d", bank, i))
			if err != nil {
				fmt.Println("ERROR", err)
			}
			fmt.Printf("PCR %s %d %s\n", bank, i, strings.ToLower(strings.TrimSpace(string(value))))
		}
	}
	fmt.Println("DONE")
	if err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("ERROR", err)
	}
}
