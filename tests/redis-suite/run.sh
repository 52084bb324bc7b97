#!/bin/sh
# Runs the Redis project's own tests of its types against the port for Redis clients.
#
#   tests/redis-suite/run.sh SUITE [FILE…]
#
# SUITE is a checkout of the Redis project (its `runtest` and `tests/`); a FILE is like
# unit/type/string. It needs tclsh, python3, redis-server and `assent` (ASSENT, or the debug build).
# Prints for each file how many tests passed, failed and were left out; with OUT, a folder, the
# outputs are kept there, which say why. It is no part of CI: the suite is fetched, never committed.
set -eu
suite=$(cd "$1" && pwd); shift
here=$(cd "$(dirname "$0")" && pwd)
assent=${ASSENT:-$here/../../target/debug/assent}
files=${*:-unit/type/string unit/type/incr unit/type/hash unit/type/hash-field-expire unit/type/list
  unit/type/list-2 unit/type/list-3 unit/type/set unit/type/zset unit/type/stream
  unit/type/stream-cgroups unit/multi unit/expire unit/other}
base=${PORT:-17800}
redis=$base agent=$((base + 1)) agent_admin=$((base + 2))
api=$((base + 3)) admin=$((base + 4)) resp=$((base + 5)) door=$((base + 6))
dir=$(mktemp -d)
pids=
stop() { for pid in $pids; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$dir"; }
trap stop EXIT
trap 'exit 1' INT TERM
keep() { pids="$! $pids"; }

redis-server --port "$redis" --dir "$dir" --appendonly yes --appendfsync always --save '' \
  --enable-debug-command local >"$dir/redis.log" & keep
until redis-cli -p "$redis" ping >/dev/null 2>&1; do sleep 0.1; done
"$assent" init --data-dir "$dir/log" >/dev/null
"$assent" participant --name it --redis "redis://127.0.0.1:$redis" --listen "127.0.0.1:$agent" \
  --admin-listen "127.0.0.1:$agent_admin" >"$dir/agent.log" 2>&1 & keep
"$assent" coordinator --data-dir "$dir/log" --listen "127.0.0.1:$api" \
  --admin-listen "127.0.0.1:$admin" --participant "it=http://127.0.0.1:$agent" \
  --resp-listen "127.0.0.1:$resp" --route '*=it' >"$dir/coordinator.log" 2>&1 & keep
python3 "$here/door.py" "$door" "$resp" "$redis" >"$dir/door.log" 2>&1 & keep
until redis-cli -p "$door" set ready yes 2>/dev/null | grep -q OK; do sleep 0.1; done

cd "$suite"
for file in $files; do
  out=${OUT:-$dir}/$(echo "$file" | tr / -).txt
  timeout 600 ./runtest --host 127.0.0.1 --port "$door" --singledb --durable --single "$file" \
    --ignore-encoding >"$out" 2>&1 || true
  # A test that fails stands in the output twice: where it ran, and in the list at the end.
  printf '%-32s passed %4d  failed %4d  left out %4d\n' "$file" \
    "$(grep -c '\[.*ok.*\]:' "$out" || true)" "$(grep -c '^\*\*\* \[.*err.*\]:' "$out" || true)" \
    "$(grep -c '\[.*\(ignore\|skip\).*\]:' "$out" || true)"
done
