#!/bin/bash
# An AsyncClient of httpx that is used in a second event loop sends its request, and then raises an
# error that reads as if it could not have.
#
# What a good engineer would guess: `RuntimeError: Event loop is closed`, of a client that was made
# for a loop that has ended, comes before anything is sent; so making a new client and posting again
# is safe. Or at least: what happens to a request is an `httpx.HTTPError`, as the manual says.
#
# What httpx 0.28.1 does (httpcore 1.0.9, anyio 4.16.0): the connection that is kept from the first
# loop takes the POST, and the socket sends it; only then the ended loop is noticed. The error is a
# plain RuntimeError, and the server has done the POST. The next request, on a new connection, is
# answered, so that every second one fails.
#
# So a client that must say what may have arrived takes every exception of `send` for "may have been
# sent", and one that serves several loops keeps connections for each.
#
# Seen on 2026-11-30:
#   loop 1: status 200, the server has done 1 more
#   loop 2: RuntimeError: Event loop is closed, an HTTPError: False, the server has done 1 more
#   loop 3: status 200, the server has done 1 more
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" -q install httpx==0.28.1 httpcore==1.0.9 anyio==4.16.0

cat >"$dir/client.py" <<'PY'
import asyncio, queue, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import httpx

done = queue.Queue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        done.put(body)
        try:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()
        except OSError:  # its client is gone
            pass

    def log_message(self, *_):
        pass


def arrived():
    """How many POSTs have come: one at least is waited for, as long as it may take."""
    try:
        done.get(timeout=5)
    except queue.Empty:
        return 0
    return 1 + done.qsize()


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = httpx.AsyncClient(trust_env=False)
url = f"http://127.0.0.1:{server.server_port}/"
for number in (1, 2, 3):
    try:
        said = f"status {asyncio.run(client.post(url, content=b'pay')).status_code}"
    except Exception as error:
        is_http = isinstance(error, httpx.HTTPError)
        said = f"{type(error).__name__}: {error}, an HTTPError: {is_http}"
    print(f"loop {number}: {said}, the server has done {arrived()} more")
PY

found=$("$dir/venv/bin/python" "$dir/client.py")
expected='loop 1: status 200, the server has done 1 more
loop 2: RuntimeError: Event loop is closed, an HTTPError: False, the server has done 1 more
loop 3: status 200, the server has done 1 more'
echo "$found"
if [ "$found" != "$expected" ]; then
  echo "this has changed; it was:" >&2
  echo "$expected" >&2
  exit 1
fi
