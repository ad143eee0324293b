# casemate: every target that the README or docs/architecture.md names.
#
#   make demo             the main job, end to end on this machine (as root)
#   make test             everything this machine can prove, with each target's seconds
#   make bench BENCH=x    one benchmark (all without BENCH)
#   FUZZTIME=5s COUNT=1 FAULTS=200 KILLS=100 CONTAINERS=2000   how long the long ones take; make test runs 20, 10 and 50

GO      ?= go
CC_MUSL ?= musl-gcc
FUZZTIME ?= 5s
COUNT   ?= 1
FAULTS  ?= 200
KILLS   ?= 100
CONTAINERS ?= 2000
BENCH   ?= all

# One set of build tags for all three programs and all tests.
TAGS    := containers_image_openpgp netgo osusergo runc_nocriu grpcnotrace seccomp
REPRO   := -trimpath -buildvcs=false
SYSROOT := build/musl
# libcontainer needs cgo, so the guest's program is linked statically with musl.
# musl-gcc looks into neither /usr/include, where the kernel's headers are, nor
# Debian's library directory: it gets a folder with links to just what is needed.
ARCHDIR := $(shell gcc -dumpmachine)
MUSL    := CGO_ENABLED=1 CC=$(CC_MUSL) CGO_CFLAGS="-O2 -idirafter $(CURDIR)/$(SYSROOT)/include" CGO_LDFLAGS="-L$(CURDIR)/$(SYSROOT)/lib"
# Code that no container waits for is not inlined: 2 MB less to trust and to map.
COLD    := github.com/lestrrat-go github.com/vektah github.com/cloudflare github.com/opencontainers \
	github.com/ProtonMail github.com/vishvananda github.com/google/go-containerregistry github.com/docker github.com/mdlayher \
	github.com/containerd github.com/coreos github.com/godbus github.com/cilium google.golang.org/protobuf google.golang.org/grpc go.yaml.in/yaml \
	github.com/go-json-experiment github.com/google/go-tpm golang.org/x/net golang.org/x/text github.com/BurntSushi github.com/gobwas net/http
SMALL   := $(foreach p,$(COLD),-gcflags=$(p)/...=-l)
STATIC  := -s -w -buildid= -linkmode external -extldflags "-static -Wl,--build-id=none"

.PHONY: all setup build deb build-twice size test unit interop root vm fuzz soak bench demo lint generate clean

all: build

setup:
	@.ci/setup

build: bin/casemate bin/keybroker bin/casemate-build

$(SYSROOT):
	@mkdir -p $@/include $@/lib
	@ln -sfn /usr/include/linux $@/include/linux
	@ln -sfn /usr/include/asm-generic $@/include/asm-generic
	@ln -sfn /usr/include/$(ARCHDIR)/asm $@/include/asm
	@ln -sfn /usr/include/seccomp.h $@/include/seccomp.h
	@ln -sfn /usr/include/seccomp-syscalls.h $@/include/seccomp-syscalls.h
	@ln -sfn /usr/lib/$(ARCHDIR)/libseccomp.a $@/lib/libseccomp.a

build/slim.mod: go.mod go.sum .ci/slim
	@.ci/slim

.PHONY: bin/casemate bin/casemate-debug bin/casemate-testsnp bin/keybroker bin/casemate-build
bin/casemate: build/slim.mod | $(SYSROOT)
	$(MUSL) $(GO) build -modfile=build/slim.mod $(REPRO) $(SMALL) -tags '$(TAGS) muslshim' -ldflags '$(STATIC)' -o $@ ./cmd/casemate

# The guest program with a test AMD signer in place of the SEV-SNP device: for
# the demo and the end-to-end tests of machines without a TEE. Never released.
bin/casemate-testsnp: build/slim.mod | $(SYSROOT)
	$(MUSL) $(GO) build -modfile=build/slim.mod $(REPRO) $(SMALL) -tags '$(TAGS) muslshim testsnp' -ldflags '$(STATIC)' -o $@ ./cmd/casemate

# The guest program with a shell on the console and free exec, for rootfs --debug.
# keybroker refuses its guests unless the workload says debug. Never released.
bin/casemate-debug: build/slim.mod | $(SYSROOT)
	$(MUSL) $(GO) build -modfile=build/slim.mod $(REPRO) $(SMALL) -tags '$(TAGS) muslshim debug' -ldflags '$(STATIC)' -o $@ ./cmd/casemate

bin/keybroker bin/casemate-build:
	CGO_ENABLED=0 $(GO) build $(REPRO) -tags '$(TAGS)' -ldflags '-s -w -buildid=' -o $@ ./cmd/$(@F)

# The Debian packages, in build/deb: the same programs and SOURCE_DATE_EPOCH give the same bytes.
deb: build
	@cmd/internal/deb/build build/deb

# Two builds of the committed tree, in two directories of different depth with
# their own caches, must give one hash.
build-twice:
	@.ci/build-twice

size: bin/casemate build/slim.mod | $(SYSROOT)
	@$(MUSL) $(GO) build -modfile=build/slim.mod $(REPRO) $(SMALL) -tags '$(TAGS) muslshim' -ldflags '-buildid= -linkmode external -extldflags "-static -Wl,--build-id=none"' -o build/casemate.sym ./cmd/casemate
	@$(GO) run ./cmd/internal/size build/casemate.sym bin/casemate

test: setup
	@FAULTS=20 KILLS=10 CONTAINERS=50 .ci/each unit interop root vm fuzz soak

unit:
	$(GO) vet -tags '$(TAGS)' ./...
	@.ci/gotest -tags '$(TAGS)' ./...
	@.ci/gotest -tags '$(TAGS) testsnp sample' ./agent/attest/...
	@.ci/gotest -tags '$(TAGS) debug' -run Debug ./cmd/casemate
	@.ci/gotest -tags '$(TAGS) vmtest' ./rootfs/vmtest/remote

# Packages that hold tests behind the tag $(1).
tagged = $(shell grep -rlE --include='*_test.go' '^//go:build.*\b$(1)\b' agent cmd imagepull keyprovider storage verity rootfs 2>/dev/null | xargs -r -n1 dirname | sort -u | sed 's|^|./|')

interop: build bin/casemate-testsnp
	@.ci/gotest -count=1 -timeout 15m -tags '$(TAGS) testsnp interop' $(call tagged,interop)

root: build bin/casemate-testsnp
	@.ci/gotest -count=1 -timeout 15m -p 1 -tags '$(TAGS) testsnp root' $(call tagged,root)

vm: build bin/casemate-testsnp
	@started=$$(date +%s); $(GO) test -count=$(COUNT) -timeout $$((15 * $(COUNT)))m -tags '$(TAGS) vm' -v ./rootfs/vmtest/ ./cmd/internal/chain/ && \
		echo "vm: $(COUNT) of $(COUNT) runs passed in $$(($$(date +%s) - started))s"

fuzz:
	@.ci/fuzz $(FUZZTIME) '$(TAGS)'

# Pulls over a line that breaks, pulls that are killed, and containers that come and go.
soak: bin/casemate
	FAULTS=$(FAULTS) KILLS=$(KILLS) CONTAINERS=$(CONTAINERS) $(GO) test -count=1 -timeout 60m -tags '$(TAGS) soak' -run '^TestSoak' -v $(call tagged,soak)

bench: build bin/casemate-testsnp
	$(GO) run -tags '$(TAGS)' ./cmd/internal/bench $(BENCH)

demo: setup build bin/casemate-testsnp
	$(GO) run -tags '$(TAGS)' ./cmd/internal/demo

lint:
	@test -z "$$(gofmt -l agent cmd imagepull keyprovider storage verity rootfs)" || { gofmt -l .; exit 1; }
	$(GO) vet -tags '$(TAGS)' ./...

generate:
	$(GO) generate ./agent/api/... ./keyprovider/...

clean:
	rm -rf bin build
