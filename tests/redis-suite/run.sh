#!/bin/sh
# Runs the Redis project's own tests of its types against the port for Redis clients.
#
#   tests/redis-suite/run.sh SUITE [FILE…]
#
# SUITE is a checkout of the Redis project, of the version of redis-server (its `runtest` and `tests/`); a FILE is
# like unit/type/string. It needs tclsh, python3, redis-server and `assent` (ASSENT, or the debug build). Prints a
# table, and ends with 1 if a test fails without a reason in reasons.txt. With OUT, a folder, the outputs are kept
# there. Tests of what blocks, or of a server that refuses, are not run (left-out.txt): they leave a MULTI open, and
# those behind them fail. It is no part of CI: the suite is fetched, never committed.
set -eu
suite=$(cd "$1" && pwd); shift
here=$(cd "$(dirname "$0")" && pwd)
files=${*:-unit/type/string unit/type/incr unit/type/hash unit/type/list unit/type/list-2 unit/type/list-3
  unit/type/set unit/type/zset unit/type/stream unit/type/stream-cgroups unit/multi unit/expire unit/other
  unit/sort unit/bitops unit/bitfield unit/hyperloglog unit/geo unit/scan unit/keyspace}
out=${OUT:-$(mktemp -d)}
to_the_port=

outputs=
for file in $files; do
  output=$out/$(echo "$file" | tr / -).txt
  # A test that fails in its middle leaves settings behind (a delay of two seconds for each key that is saved), so
  # that each file has servers of its own.
  (
    . "$here/servers.sh"
    cd "$suite"
    timeout "${FILE_SECONDS:-3600}" ./runtest --host 127.0.0.1 --port "$door" --baseport $((base + 90)) \
      --singledb --durable --single "$file" --ignore-encoding \
      --timeout "${FILE_SECONDS:-3600}" --skipfile "$here/left-out.txt" \
      >"$output" 2>&1 || true
  )
  outputs="$outputs $output"
done
python3 "$here/table.py" "$here/reasons.txt" $outputs
