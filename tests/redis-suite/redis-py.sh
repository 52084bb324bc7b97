#!/bin/sh
# Runs the tests of commands of redis-py, the Python client, against the port for Redis clients.
#
#   tests/redis-suite/redis-py.sh SUITE [FILE…]
#
# SUITE is a checkout of redis-py, of the version that is installed for PYTHON (python3), with pytest, pytest-asyncio
# and pytest-timeout; a FILE is like tests/test_commands.py. The rest is as in run.sh. What is about a server, or is
# for a cluster or a module, is not asked for.
set -eu
suite=$(cd "$1" && pwd); shift
here=$(cd "$(dirname "$0")" && pwd)
python=$(command -v "${PYTHON:-python3}")
files=${*:-tests/test_commands.py tests/test_pipeline.py tests/test_asyncio/test_commands.py
  tests/test_asyncio/test_pipeline.py}
about_a_server='acl or auth or config or slowlog or latency or client_ or module or shutdown or monitor or cluster
  or failover or replica or role or bgsave or lastsave or debug or bgrewrite'
out=${OUT:-$(mktemp -d)}
to_the_port='ACL CONFIG'
. "$here/servers.sh"

cd "$suite"
outputs=
for file in $files; do
  output=$out/$(echo "${file%.py}" | tr / -).xml
  "$python" -m pytest "$file" --redis-url "redis://127.0.0.1:$door/0" --timeout 60 -o addopts= -q \
    -m 'not onlycluster and not redismod' -k "not ($(echo $about_a_server))" -p no:cacheprovider \
    --junitxml "$output" >"${output%.xml}.txt" 2>&1 || true
  outputs="$outputs $output"
done
python3 "$here/table.py" "$here/redis-py-reasons.txt" $outputs
