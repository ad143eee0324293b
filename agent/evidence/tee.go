// SPDX-License-Identifier: Apache-2.0

package evidence

import "fmt"

// TEE is the name of a trusted execution environment as the KBS protocol spells it.
type TEE string

// The names that a primary attester may carry in a Request. Being listed says that
// the name exists, not that anybody here can produce or verify its evidence.
const (
	SNP       TEE = "snp"
	TDX       TEE = "tdx"
	AzSNPvTPM TEE = "az-snp-vtpm"
	AzTDXvTPM TEE = "az-tdx-vtpm"
	SGX       TEE = "sgx"
	CCA       TEE = "cca"
	SE        TEE = "se"
	CSV       TEE = "csv"
	TPM       TEE = "tpm"
	Sample    TEE = "sample"
)

// ParseTEE returns the TEE of that exact name, or an error that quotes the name.
func ParseTEE(name string) (TEE, error) {
	switch tee := TEE(name); tee {
	case SNP, TDX, AzSNPvTPM, AzTDXvTPM, SGX, CCA, SE, CSV, TPM, Sample:
		return tee, nil
	}
	return "", fmt.Errorf("unknown TEE %s", quote(name))
}
