#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Signs one small image with cosign and keeps what the registry then holds: cosign.pub, cosign.json (the payload),
# cosign.sig (the base64 signature), and the image's digest in digest. Needs cosign 2, skopeo, umoci, docker-registry
# and curl.
set -eu
cd "$(dirname "$0")"
here=$PWD
work=$(mktemp -d)
cd "$work"
cat > registry.yml <<EOF
version: 0.1
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: 127.0.0.1:5871}
EOF
docker-registry serve registry.yml > registry.log 2>&1 &
registry=$!
trap 'kill $registry; rm -rf "$work"' EXIT
umoci init --layout image
umoci new --image image:v1
sleep 1
repo=127.0.0.1:5871/team/app
skopeo copy -q --dest-tls-verify=false oci:image:v1 docker://$repo:v1
digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' docker://$repo:v1)
export COSIGN_PASSWORD=
cosign generate-key-pair
cosign sign -y --key cosign.key --tlog-upload=false --allow-http-registry "$repo@$digest"
v2=http://127.0.0.1:5871/v2/team/app
curl -sf "$v2/manifests/$(echo "$digest" | tr : -).sig" -H 'Accept: application/vnd.oci.image.manifest.v1+json' |
	tr -d '\n ' > manifest
layer=$(sed 's/.*"layers":\[{[^]]*"digest":"\([^"]*\)".*/\1/' manifest)
curl -sf "$v2/blobs/$layer" > "$here/cosign.json"
sed 's|.*"dev.cosignproject.cosign/signature":"\([^"]*\)".*|\1|' manifest > "$here/cosign.sig"
cp cosign.pub "$here/cosign.pub"
echo "$digest" > "$here/digest"
