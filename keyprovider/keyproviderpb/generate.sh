#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Regenerates the Go files of this directory. Needs protoc (Debian's
# protobuf-compiler); the plugins are pinned as tools in go.mod. It runs from
# the top of the module: the path under which a descriptor is registered must
# be unique in every program that links it.
set -eu
cd "$(dirname "$0")/../.."
dir=keyprovider/keyproviderpb
protoc --plugin=protoc-gen-go="$(go tool -n protoc-gen-go)" \
	--go_out=. --go_opt=paths=source_relative $dir/messages.proto
protoc --plugin=protoc-gen-go-grpc="$(go tool -n protoc-gen-go-grpc)" \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative $dir/keyprovider.proto
protoc --plugin=protoc-gen-go-ttrpc="$(go tool -n protoc-gen-go-ttrpc)" \
	--go-ttrpc_out=. --go-ttrpc_opt=paths=source_relative,prefix=TTRPC $dir/keyprovider.proto
