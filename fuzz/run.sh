#!/bin/sh
# Runs every fuzz target for the given number of seconds and fails on the first crash: fuzz/run.sh 60
#
# The pinned stable toolchain is enough: without a sanitizer, cargo-fuzz needs nothing that only nightly has, and code without
# `unsafe` gives a sanitizer little to find.
set -eu

seconds=${1:?usage: fuzz/run.sh SECONDS}
cd "$(dirname "$0")"

../tests/setup.sh cargo
cargo_fuzz=${TACHO_CACHE:-$HOME/.cache/tacho}/cargo-tools-venv/bin/cargo-fuzz

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in wire json; do
    mkdir -p "corpus/$target"
    # The first folder takes what the fuzzer finds, the second is only read.
    if ! "$cargo_fuzz" run --sanitizer none "$target" "corpus/$target" "seeds/$target" -- \
        "-max_total_time=$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -dict=keys.dict -print_final_stats=1 \
        >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "fuzz: $target failed; the body is in fuzz/artifacts/$target" >&2
        exit 1
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") bodies in $seconds s, no crash"
done
