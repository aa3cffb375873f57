#!/usr/bin/env bash
# Makes the container image from a static binary that lies ready, without a base image:
#
#   image.sh BINARY TAG         by docker, podman or buildah, whichever is found first; ENGINE names another
#
# CA_BUNDLE names the root certificates that go into the image.
set -euo pipefail

[ "$#" -eq 2 ] || { echo "usage: image.sh BINARY TAG" >&2; exit 2; }
die() { echo "image: $*" >&2; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Docker without BuildKit takes no build context by name.
usable() { case $1 in docker) docker buildx version >/dev/null 2>&1 ;; *) command -v "$1" >/dev/null ;; esac; }
engine=${ENGINE:-$(for name in docker podman buildah; do if usable "$name"; then echo "$name"; break; fi; done)}
bundle=${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt} # where Debian keeps it
[ -n "$engine" ] || die "install docker with buildx, podman or buildah"
[ -s "$bundle" ] || die "no root certificates at $bundle: install ca-certificates, or set CA_BUNDLE"

# What the stage `build` of the Dockerfile leaves.
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/image/empty" "$stage/nothing"
cp "$1" "$stage/image/tacho"
cp "$bundle" "$stage/image/ca-certificates.crt"
chmod 755 "$stage/image/tacho" "$stage/image/empty"
chmod 644 "$stage/image/ca-certificates.crt"

options=(--file "$here/Dockerfile" --tag "$2" --build-context "build=$stage")
# The format of OCI has no health check.
case $(basename "$engine") in docker) ;; *) options+=(--format docker) ;; esac
"$engine" build "${options[@]}" "$stage/nothing"
