#!/bin/bash
# A timeout of httpx does not bound a request: an answer that comes drop by drop is waited for.
#
# What a good engineer would guess: `httpx.get(url, timeout=0.5)` has an answer, or has raised, after
# half a second.
#
# What httpx 0.28.1 does: the time is that of each single read from the socket. A server that sends
# one byte each 0.1 seconds is never too slow, however long its answer takes; the head of the answer
# too. The async client does the same. (requests does it as well, and says so in its manual.)
#
# So a client that promises an end to each wait needs a deadline of its own around httpx.
#
# Seen on 2026-11-30 with httpx 0.28.1:
#   blocking, timeout=0.5: status 200, after more than 2 s: True
#   async, timeout=0.5: status 200, after more than 2 s: True
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" -q install httpx==0.28.1

cat >"$dir/client.py" <<'PY'
import asyncio, socket, threading, time
import httpx

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


def serve(client):
    client.recv(65536)
    for byte in ANSWER:
        client.sendall(bytes([byte]))
        time.sleep(0.1)
    client.close()


def accept():
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(client,), daemon=True).start()


def tell(how, answer, started):
    took = time.monotonic() - started
    print(f"{how}, timeout=0.5: status {answer.status_code}, after more than 2 s: {took > 2}")


async def wait():
    started = time.monotonic()
    async with httpx.AsyncClient(timeout=0.5, trust_env=False) as client:
        tell("async", await client.get(url), started)


listener = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listener.getsockname()[1]}"
threading.Thread(target=accept, daemon=True).start()
started = time.monotonic()
tell("blocking", httpx.get(url, timeout=0.5, trust_env=False), started)
asyncio.run(wait())
PY

found=$("$dir/venv/bin/python" "$dir/client.py")
expected='blocking, timeout=0.5: status 200, after more than 2 s: True
async, timeout=0.5: status 200, after more than 2 s: True'
echo "$found"
if [ "$found" != "$expected" ]; then
  echo "this has changed; it was:" >&2
  echo "$expected" >&2
  exit 1
fi
