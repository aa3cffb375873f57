#!/usr/bin/env bash
# Times the way from nothing to the first record that `tacho report` shows, for each way to install. Nothing is a fresh
# clone of what is committed: no target folder, no cargo-deb. What cargo has downloaded, the compilers and the programs
# that tests/setup.sh installs are there already. Needs root.
#
#   first-record.sh [make] [deb] [image]        all of them, if none is named
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
debian=${TACHO_CACHE:-$HOME/.cache/tacho}/debian/root
work=$(mktemp -d)
pid=
[ "$#" -gt 0 ] || set -- make deb image

clean() {
    local status=$?
    trap - EXIT
    if [ "$status" -ne 0 ]; then tail -n 20 "$work"/*.log >&2; fi
    if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; fi
    wait
    if [ -e "$work/storage.conf" ]; then buildah rm --all >/dev/null 2>&1 || true; fi
    rm -rf --one-file-system "$work"
    exit "$status"
}
trap clean EXIT
trap 'exit 130' INT TERM

die() { echo "first-record: $*" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || die "please run as root: it changes roots"

# timed NAME COMMAND…: adds seconds, and CPU-seconds, to what is known by that name.
declare -A seconds cpu
timed() {
    local TIMEFORMAT='%R %U %S'
    { time "${@:2}" >>"$work/$1.log" 2>&1 </dev/null; } 2>"$work/$1.time"
    seconds[$1]=$(awk '{ printf "%.1f", $1 }' "$work/$1.time")
    cpu[$1]=$(awk '{ printf "%.0f", $2 + $3 }' "$work/$1.time")
}

# row WAY BUILD PACK RECORD: names of what was timed; `-` is nothing.
table=
row() {
    local build=${seconds[$2]} pack=${seconds[$3]:-0} record=${seconds[$4]} all
    all=$(awk "BEGIN { printf \"%.1f\", $build + $pack + $record }")
    table+=$(printf '%-6s %9s %9s %9s %9s %9s' "$1" "$build" "${cpu[$2]}" "$pack" "$record" "$all")$'\n'
}

until_true() {
    local end=$((SECONDS + 60))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || die "waited 60 s for: $*"
        sleep 0.1
    done
}

attribute() { printf '{"key": "%s", "value": {"%s": "%s"}}' "$1" "$2" "$3"; }

# One request of a user with one call below it, as OTLP in JSON.
spans() {
    local now trace
    now=$(date +%s)
    trace=$(printf '%032x' "$now")
    cat <<JSON
{"resourceSpans": [{"resource": {"attributes": [$(attribute service.name stringValue first-record)]},
  "scopeSpans": [{"scope": {"name": "first-record"}, "spans": [
    {"traceId": "$trace", "spanId": "00000000000000a1", "kind": 2, "name": "POST /ask",
     "startTimeUnixNano": "$((now - 2))000000000", "endTimeUnixNano": "${now}000000000", "attributes": [
       $(attribute http.request.method stringValue POST), $(attribute http.route stringValue /ask),
       $(attribute user.id stringValue first)]},
    {"traceId": "$trace", "spanId": "00000000000000a2", "parentSpanId": "00000000000000a1", "kind": 3, "name": "chat",
     "startTimeUnixNano": "$((now - 2))000000000", "endTimeUnixNano": "$((now - 1))000000000", "attributes": [
       $(attribute gen_ai.operation.name stringValue chat), $(attribute gen_ai.provider.name stringValue openai),
       $(attribute gen_ai.request.model stringValue gpt-4o-mini),
       $(attribute gen_ai.usage.input_tokens intValue 120), $(attribute gen_ai.usage.output_tokens intValue 40)]}
]}]}]}
JSON
}

reported() { "$@" report --json 2>/dev/null | grep -q '"requests": 1'; }
address() { sed -n 's/.*"otlp_http":"\([^"]*\)".*/\1/p' "$1/listen.json"; }

# record DATA COMMAND…: starts that tacho, which keeps its data there, feeds it and waits for the record.
record() {
    local data=$1
    shift
    "$@" run &
    pid=$!
    until_true test -s "$data/listen.json"
    spans | curl --fail --silent --show-error --noproxy '*' --header 'content-type: application/json' --data-binary @- \
        "http://$(address "$data")/v1/traces"
    until_true reported "$@"
    kill "$pid"
    wait "$pid" || true # buildah says that what it ran was ended
    pid=
}

export TACHO_LISTEN__OTLP_GRPC=127.0.0.1:0 TACHO_LISTEN__OTLP_HTTP=127.0.0.1:0 TACHO_LISTEN__HTTP=127.0.0.1:0

by_make() {
    timed build make -C "$work/tree" install PREFIX="$work/local"
    mkdir "$work/here"
    cd "$work/here"
    timed by-make record "$work/here/tacho-data" "$work/local/bin/tacho"
    row make build - by-make
}

# The static binary, once for both ways that need it.
need_static() { if [ -z "${seconds[static]:-}" ]; then timed static make -C "$work/tree" static; fi; }

# cargo-deb is built for it too, as the cache is empty.
package() {
    TACHO_CACHE=$work/cache make -C "$work/tree" release
    cp "$work"/tree/target/dist/*.deb "$work/debian/tmp/tacho.deb"
    chroot "$work/debian" dpkg --install /tmp/tacho.deb
}

by_deb() {
    [ -d "$debian" ] || die "$debian is missing: run tests/setup.sh debian"
    cp --archive --reflink=auto "$debian" "$work/debian"
    need_static
    timed package package
    export TACHO_CONFIG=/etc/tacho/tacho.toml
    timed by-deb record "$work/debian/var/lib/tacho" chroot --userspec=tacho:tacho "$work/debian" /usr/bin/tacho
    unset TACHO_CONFIG
    row deb static package by-deb
}

by_image() {
    local container ports
    need_static
    export CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_ISOLATION=chroot
    printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/images" "$work/state" \
        >"$CONTAINERS_STORAGE_CONF"
    timed image env ENGINE=buildah make -C "$work/tree" image
    container=$(buildah from "$(buildah images --quiet | head -n 1)")
    install -d -o 10001 -g 10001 "$work/volume"
    mapfile -t ports < <(env | grep ^TACHO_LISTEN__)
    timed by-image record "$work/volume" \
        buildah run --volume "$work/volume:/var/lib/tacho" "${ports[@]/#/--env=}" "$container" -- /usr/bin/tacho
    row image static image by-image
}

git clone --quiet "$root" "$work/tree"
for way in "$@"; do
    case $way in make | deb | image) "by_$way" ;; *) die "no such way: $way (make, deb, image)" ;; esac
done
printf 'seconds, on %s cores with a load of %s\n' "$(nproc)" "$(cut -d ' ' -f 1 /proc/loadavg)"
printf '%-6s %9s %9s %9s %9s %9s\n' way build cpu pack record all
printf '%s' "$table"
