#!/usr/bin/env bash
# Makes what is handed out: a static binary, a Debian package with it, and their checksums. tests/setup.sh packaging
# installs what it needs.
#
#   release.sh [FOLDER [PROFILE [OPTION…]]]     into target/dist, by the profile `static`; options are for cargo-deb
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-target/dist}
profile=${2:-static}
options=("${@:3}")
target=$(uname -m)-unknown-linux-musl
built=${CARGO_TARGET_DIR:-target}/$target/$profile
cache=${TACHO_CACHE:-$HOME/.cache/tacho}

cargo build --quiet --locked --profile "$profile" --target "$target" --bin tacho

# Beside the binary, where the manifest finds it for each target and profile.
made=$built/package
rm -rf "$made"
"$built/tacho" man "$made/man1" >/dev/null
gzip -9 --no-name "$made"/man1/*
for shell in bash zsh fish; do "$built/tacho" completions "$shell" >"$made/tacho.$shell"; done

rm -rf "$out"
mkdir -p "$out"
install -m 755 "$built/tacho" "$out/tacho-$target"
"$cache/cargo-deb/bin/cargo-deb" --quiet --locked --no-build --no-strip --profile "$profile" --target "$target" \
    --package tacho --output "$out/" "${options[@]}"
cd "$out"
sha256sum -- * >SHA256SUMS
printf 'release: %s\n' "$out"/*
