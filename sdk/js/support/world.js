// What the tests run against: a real coordinator with two participants, a hook, a proxy that loses
// what it is told to lose, and a port where nobody listens.

import { spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { Veto, hookHandler } from "assent";

const BUILT = new URL("../../../target/debug/assent", import.meta.url);
const PROGRAM = process.env.ASSENT ?? fileURLToPath(BUILT);

/** Starts everything. */
export async function startWorld() {
  const hook = new Holding();
  const hookServer = await listen(http.createServer(hookHandler(hook.decide)));
  const hookUrl = `${addressOf(hookServer)}/hook`;
  const hooks = ["--hook", `shop=${hookUrl}`, "--hook", `credit=${hookUrl}`];
  const options = ["--participants", "bank,shop,credit", ...hooks];
  const dev = await startDev(options).catch(async (error) => {
    await close(hookServer);
    throw error;
  });
  const proxy = new LosingProxy(dev.url);
  const proxyServer = await listen(http.createServer(proxy.handle));
  const nobody = await listen(http.createServer());
  const dead = addressOf(nobody);
  await close(nobody);
  return {
    addresses: {
      live: dev.url,
      lossy: addressOf(proxyServer),
      dead,
      tls: dev.url.replace(/^http:/, "https:"),
    },
    hook,
    proxy,
    async stop() {
      await dev.stop();
      await Promise.all([close(hookServer), close(proxyServer)]);
    },
  };
}

/** `assent dev`, on free ports. */
export async function startDev(options) {
  const listeners = ["--listen", "--admin-listen", "--resp-listen"];
  const anywhere = listeners.flatMap((listener) => [listener, "127.0.0.1:0"]);
  const words = ["dev", "--config", "none", "-o", "json", ...anywhere, ...options];
  const process_ = spawn(PROGRAM, words, { stdio: ["ignore", "pipe", "pipe"] });
  const ended = once(process_, "exit");
  const said = [];
  const ready = new Promise((resolve) => {
    createInterface(process_.stderr).on("line", (line) => {
      said.push(line);
      if (line.startsWith("ready in")) resolve(undefined);
    });
  });
  const described = once(createInterface(process_.stdout), "line");
  const tooEarly = ended.then(([code]) => {
    throw new Error(`${PROGRAM} dev ended with ${code}:\n${said.join("\n")}`);
  });
  const [[line]] = await Promise.race([Promise.all([described, ready]), tooEarly]);
  tooEarly.catch(() => {});
  return {
    url: JSON.parse(line).url,
    async stop() {
      process_.kill("SIGTERM");
      await ended;
    },
  };
}

/** The hook of the contract. */
class Holding {
  #released = new Map();

  decide = async ({ input }, stage) => {
    if (input?.add !== undefined) return this.#add(input.add, stage);
    if (input?.hold !== undefined) {
      await this.#gate(input.hold).promise;
      return { held: input.hold };
    }
    throw new Veto("bad_input", "it is neither `add` nor `hold`");
  };

  async #add({ key, amount, limit }, stage) {
    const total = Number((await stage.read(["GET", key])) ?? 0) + amount;
    if (total > limit) throw new Veto("limit_exceeded", `${total} is above ${limit}`);
    stage.op(["INCRBY", key, amount]);
    return { total };
  }

  /** Lets it answer the inputs that it holds under this name. */
  release(name) {
    this.#gate(name).open();
  }

  #gate(name) {
    if (!this.#released.has(name)) {
      let open;
      const promise = new Promise((resolve) => (open = resolve));
      this.#released.set(name, { promise, open });
    }
    return this.#released.get(name);
  }
}

/** Passes requests on, and loses something of the next one. */
class LosingProxy {
  #to;
  #lose = null;

  constructor(to) {
    this.#to = to;
  }

  /** What the next request loses. */
  lose(what) {
    this.#lose = what;
  }

  handle = async (request, response) => {
    const what = this.#lose;
    this.#lose = null;
    const body = await collect(request);
    if (what === "request") return request.socket.destroy();
    if (what === "refuse") return problem(response, 429, "overloaded", true);
    const { host, "transfer-encoding": _, ...headers } = request.headers;
    const forwarded = http.request(`${this.#to}${request.url}`, {
      method: request.method,
      headers: { ...headers, "content-length": body.length },
    });
    forwarded.end(body);
    const [answer] = await once(forwarded, "response");
    await this.#answer(what, request.socket, answer, await collect(answer), response);
  };

  async #answer(what, socket, answer, body, response) {
    const html = { "content-type": "text/html" };
    switch (what) {
      case null:
        return response.writeHead(answer.statusCode, answer.headers).end(body);
      case "answer":
        return socket.destroy();
      case "cut":
        response.writeHead(answer.statusCode, answer.headers);
        return response.write(body.subarray(0, -10), () => socket.destroy());
      case "404":
      case "200":
        return response.writeHead(Number(what), html).end("<html>not Assent</html>");
      case "problem-500":
        return problem(response, 500, "internal", false);
      case "other-abort":
        return problem(response, 409, "lock_conflict", true, { outcome: "aborted", id: OTHER_ID });
      case "null-outcome":
        return problem(response, 409, "lock_conflict", true, { outcome: null });
      case "no-branches": {
        const { branches: _, ...rest } = JSON.parse(body.toString());
        return response
          .writeHead(200, { "content-type": "application/json" })
          .end(JSON.stringify(rest));
      }
      default:
        throw new Error(`the proxy cannot lose ${what}`);
    }
  }
}

/** Answers with an error document. */
function problem(response, status, code, retryable, more = {}) {
  const known = { type: `/errors#${code}`, title: "t", status, detail: "d", code, retryable };
  response
    .writeHead(status, { "content-type": "application/problem+json" })
    .end(JSON.stringify({ ...known, ...more }));
}

const OTHER_ID = "01976f00-0000-7000-8000-000000000000";

export async function listen(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

export function addressOf(server) {
  return `http://127.0.0.1:${server.address().port}`;
}

export async function close(server) {
  server.close();
  server.closeAllConnections?.();
  await once(server, "close");
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}
