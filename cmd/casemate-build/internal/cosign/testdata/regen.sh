#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the protected key pair again with cosign (recorded with v2.6.1):
#   go install github.com/sigstore/cosign/v2/cmd/cosign@v2.6.1
set -eu
cd "$(dirname "$0")"
COSIGN_PASSWORD=secret cosign generate-key-pair --output-key-prefix cosign-protected
