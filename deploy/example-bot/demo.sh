#!/usr/bin/env bash
# Shows Tacho at work: a bot, a stand-in for its model server, and Tacho beside them, all on free ports of this
# machine and in a folder that is gone afterwards. `make demo` calls it:
#
#   demo.sh TACHO PYTHON        the tacho binary; the Python of the environment that tests/setup.sh makes
set -euo pipefail

[ "$#" -eq 2 ] || { echo "usage: demo.sh TACHO PYTHON" >&2; exit 2; }
tacho=$(realpath "$1")
python=$(realpath --no-symlinks "$2") # what the link is called is how Python knows its environment
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=$(mktemp -d)
requests=60
started=()

clean() {
    local status=$?
    trap - EXIT
    if [ "$status" -ne 0 ]; then
        for log in "$dir"/*.out; do printf '\n== %s\n' "${log##*/}"; tail -n 20 "$log"; done >&2
    fi
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$dir"
    exit "$status"
}
trap clean EXIT
trap 'exit 130' INT TERM

fail() { echo "demo: $*" >&2; exit 1; }

# start NAME COMMAND…: runs it in the background with its output in NAME.out; its id is in $pid.
start() {
    "${@:2}" >"$dir/$1.out" 2>&1 &
    pid=$!
    started+=("$pid")
}

# until_true SECONDS WHAT COMMAND…: gives up early when the program in $pid, of whom it is expected, has ended.
until_true() {
    local end=$((SECONDS + $1))
    until "${@:3}"; do
        kill -0 "$pid" 2>/dev/null || fail "waited for $2, but the program has ended"
        [ "$SECONDS" -lt "$end" ] || fail "waited $1 s for $2"
        sleep 0.1
    done
}

# The address in a program's line `listening on HOST:PORT`.
address() { sed -n 's/^listening on //p' "$dir/$1.out"; }
listens() { [ -n "$(address "$1")" ]; }
tacho_face() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$dir/listen.json" "$1"; }

# Requests and tokens in Tacho's database, and tokens in the log of the model server.
recorded() {
    "$python" - "$dir/tacho.db" 2>/dev/null <<'PYTHON'
import sqlite3, sys
database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
print(*database.execute("SELECT count(*), coalesce(sum(total_tokens), 0) FROM usage_records").fetchone())
PYTHON
}
answered() {
    "$python" -c 'import json, sys; print(sum(c["input"] + c["output"] for c in map(json.loads, open(sys.argv[1]))))' \
        "$dir/llm.jsonl"
}
all_recorded() { [ "$(recorded)" = "$requests $(answered)" ]; }

cd "$dir" # a tacho.toml where the caller stands is not meant for this
export TACHO_DATA_DIR=$dir TACHO_DATABASE__URL=sqlite:$dir/tacho.db
export TACHO_LISTEN__OTLP_GRPC=127.0.0.1:0 TACHO_LISTEN__OTLP_HTTP=127.0.0.1:0 TACHO_LISTEN__HTTP=127.0.0.1:0
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

start tacho "$tacho" run
tacho_pid=$pid
until_true 10 "Tacho to listen" test -e "$dir/listen.json"
echo "tacho      takes spans at $(tacho_face otlp_grpc)"

start model "$python" "$here/llm_stand_in.py" --log "$dir/llm.jsonl"
until_true 20 "the model server to listen" listens model
echo "model      a stand-in answers at $(address model)"

start bot env OPENAI_BASE_URL="http://$(address model)/v1" OPENAI_API_KEY=none OTEL_SERVICE_NAME=example-bot \
    OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_ENDPOINT="http://$(tacho_face otlp_grpc)" \
    OTEL_BSP_SCHEDULE_DELAY=500 "$python" "$here/bot.py"
until_true 20 "the bot to listen" listens bot
echo "bot        listens at $(address bot), instrumented with OpenTelemetry"

echo "traffic    $requests requests of 5 users"
"$python" "$here/traffic.py" --url "http://$(address bot)" --requests "$requests" | sed 's/^/           /'

kill -TERM "$pid"
wait "$pid" || fail "the bot ended with $?"
pid=$tacho_pid
until_true 20 "the records to equal what the model server answered" all_recorded
read -r records tokens < <(recorded)
echo "records    $records requests, $tokens tokens; the model server counted $(answered)"

for key in user model; do
    printf '\n$ tacho report --by %s\n' "$key"
    "$tacho" report --by "$key"
done
