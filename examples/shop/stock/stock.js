// The stock service of the shop: it counts what is left, and takes part in every purchase by a hook.
//
// An agent runs beside its Redis (`assent participant --name stock --hook-url …/assent`). A purchase
// comes with an input, {"item": "lamp", "quantity": 1}; which key that means is this service's own
// business, so it is the hook that writes the op.
//
//   coordinator ─► agent ─ POST /assent ─► reserve: DECRBY, in escrow
//                    │
//                    └─► Redis ◄─ GET ─ GET /stock/lamp ◄─ anybody

import { readFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";

import { Veto, hookHandler } from "assent";

const ITEMS = new Set(["lamp"]);
const REDIS_TIMEOUT_MS = 1_000;

const [listenHost, listenPort] = address(process.env.STOCK_LISTEN ?? "127.0.0.1:8001");
const [redisHost, redisPort] = address(process.env.STOCK_REDIS ?? "127.0.0.1:6379");

/** Takes the items off the stock, as part of the purchase. */
function reserve({ input }, stage) {
  const { item, quantity } = input ?? {};
  if (!ITEMS.has(item)) throw new Veto("unknown_item", "the shop sells no such item");
  if (!Number.isSafeInteger(quantity) || quantity < 1) {
    throw new Veto("bad_input", "a quantity of 1 or more is needed");
  }
  // Everybody wants the same item. In escrow, purchases share the counter in place of waiting for
  // each other, and however they end it never falls below 0.
  stage.op(["DECRBY", stockKey(item), quantity], { expect: { ge: 0 }, escrow: true });
}

// Where other machines reach this service, only who has the token may ask the hook: its agent.
const tokenFile = process.env.STOCK_HOOK_TOKEN_FILE;
const hook = hookHandler(reserve, tokenFile && { token: readFileSync(tokenFile, "utf8").trim() });

const server = http.createServer((request, response) => {
  const [, item] = request.url.match(/^\/stock\/([a-z]+)$/) ?? [];
  if (request.method === "POST" && request.url === "/assent") return hook(request, response);
  if (request.method === "GET" && request.url === "/livez") return answer(response, 200, {});
  if (request.method !== "GET" || !ITEMS.has(item)) {
    return answer(response, 404, { error: "there is POST /assent, GET /stock/ITEM and GET /livez" });
  }
  return get(stockKey(item)).then(
    (left) => answer(response, 200, { item, left: Number(left ?? 0) }),
    (error) => answer(response, 503, { error: `the stock cannot be read: ${error.message}` }),
  );
});

server.listen(listenPort, listenHost, () => console.log(`stock at ${listenHost}:${listenPort}`));

function stockKey(item) {
  return `stock:${item}`;
}

function answer(response, status, body) {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body));
}

/**
 * Reads a key of the service's own Redis. A service of yours has a client library for this; here it
 * is one command, and the shop is to run without anything from a registry.
 */
function get(key) {
  return new Promise((resolve, reject) => {
    let heard = "";
    const socket = net.connect({ host: redisHost, port: redisPort, timeout: REDIS_TIMEOUT_MS });
    socket.setEncoding("utf8");
    socket.on("connect", () => socket.write(`GET ${key}\r\n`));
    socket.on("timeout", () => socket.destroy(new Error("Redis does not answer")));
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("Redis closed the connection")));
    socket.on("data", (text) => {
      heard += text;
      // "$2\r\n50\r\n"; "$-1\r\n" for a key that is not there; "-LOADING …\r\n" for an error.
      const reply = heard.match(/^(?:\$\d+\r\n(.*)|\$-1|-(.*))\r\n$/s);
      if (reply === null) return;
      const [, value, error] = reply;
      if (error === undefined) resolve(value ?? null);
      else reject(new Error(error));
      socket.destroy();
    });
  });
}

function address(text) {
  const [host, port] = text.split(":");
  return [host, Number(port)];
}
