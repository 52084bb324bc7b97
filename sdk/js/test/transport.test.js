// What a strange answer means, and that nothing is said twice. The server here is none of Assent's.

import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { after, before, beforeEach, describe, test } from "node:test";

import { Aborted, Client, Committed, Rejected, Transaction, Unknown } from "assent";
import { hookHandler, newId } from "assent";

import { addressOf, close, listen } from "../support/world.js";

const JSON_TYPE = { "content-type": "application/json" };
const PROBLEM_TYPE = { "content-type": "application/problem+json" };
const get = (options) => new Transaction(options).op("bank", ["GET", "k"]);

const problem = (fields) =>
  JSON.stringify({
    type: "/errors#x",
    title: "t",
    status: 503,
    detail: "d",
    code: "overloaded",
    retryable: true,
    ...fields,
  });

const committed = (id) =>
  JSON.stringify({
    id,
    outcome: "committed",
    state: "ended",
    applied: true,
    branches: [{ participant: "bank", state: "applied", replies: ["v"] }],
  });

describe("an exchange", () => {
  let server;
  let client;
  /** What the server has heard, as bodies; and how it answers. */
  let heard = [];
  let answer;

  before(async () => {
    server = await listen(
      http.createServer(async (request, response) => {
        let body = "";
        for await (const chunk of request) body += chunk;
        heard.push({ url: request.url, headers: request.headers, body: body && JSON.parse(body) });
        answer(response, heard.at(-1));
      }),
    );
  });
  after(() => close(server));
  beforeEach(() => {
    heard = [];
    client = new Client(addressOf(server));
  });

  const answering = (status, headers, body) => {
    answer = (response, { body: { id } = {} }) =>
      response.writeHead(status, headers).end(typeof body === "function" ? body(id) : body);
  };

  test("is not said again after 421, for which fetch says it again", async () => {
    answering(421, {}, "");
    await assert.rejects(client.submit(get()), Unknown);
    assert.equal(heard.length, 1);
  });

  test("is not said again elsewhere after a redirect", async () => {
    for (const status of [301, 302, 303, 307, 308]) {
      heard = [];
      answering(status, { location: `${addressOf(server)}/elsewhere` }, "");
      await assert.rejects(client.submit(get()), Unknown);
      assert.equal(heard.length, 1);
    }
  });

  test("is not said again when the connection ends", async () => {
    answer = (response) => response.socket.destroy();
    await assert.rejects(client.submit(get()), Unknown);
    assert.equal(heard.length, 1);
  });

  test("is unclear, whatever a stranger says", async () => {
    const html = { "content-type": "text/html" };
    const strange = [
      [200, html, committed],
      [200, {}, committed],
      [404, html, "not found"],
      [404, JSON_TYPE, '{"error":"not found"}'],
      [200, JSON_TYPE, "<html>"],
      [200, JSON_TYPE, "null"],
      [200, JSON_TYPE, '{"id":1,"outcome":"committed"}'],
      [200, JSON_TYPE, (id) => committed(id).replace('"committed"', '"done"')],
      [200, JSON_TYPE, () => committed(newId())],
      [200, JSON_TYPE, (id) => committed(id).replace('"v"', '{"base64":"?"}')],
      [200, JSON_TYPE, (id) => committed(id).replace('["v"]', '"v"')],
      [200, JSON_TYPE, (id) => committed(id).replace(/\[.*\]/, "[null]")],
      [503, PROBLEM_TYPE, problem({ status: 409, outcome: "aborted" })],
      [503, PROBLEM_TYPE, "{}"],
      [500, PROBLEM_TYPE, problem({ status: 500, code: "internal" })],
      [503, PROBLEM_TYPE, problem({ outcome: "pending" })],
      [503, PROBLEM_TYPE, problem({ outcome: null })],
      [503, PROBLEM_TYPE, problem({ outcome: "aborted" })],
      [503, PROBLEM_TYPE, problem({ outcome: "aborted", id: newId() })],
      [503, PROBLEM_TYPE, problem({ outcome: "aborted", id: 5 })],
      [503, PROBLEM_TYPE, problem({ id: newId() })],
      [200, JSON_TYPE, (id) => `{"id":"${id}","outcome":"committed","state":"ended"}`],
      [200, JSON_TYPE, (id) => committed(id).replace('"state":"ended",', "")],
      [202, JSON_TYPE, (id) => committed(id).replace('"committed"', '"pending"')],
    ];
    for (const [status, headers, body] of strange) {
      answering(status, headers, body);
      const transaction = get();
      const error = await client.submit(transaction).catch((thrown) => thrown);
      assert.ok(error instanceof Unknown, `${status} ${body}: ${error}`);
      assert.equal(error.id, transaction.id);
      assert.equal(error.coordinator, addressOf(server));
    }
  });

  test("is unclear where an answer without a state came, in words", async () => {
    answering(202, JSON_TYPE, (id) => `{"id":"${id}","outcome":"pending"}`);
    const error = await client.submit(get()).catch((thrown) => thrown);
    assert.ok(error instanceof Unknown, error);
    assert.doesNotMatch(error.message, /undefined/);
  });

  test("of a key is unclear where it is told of another transaction than before", async () => {
    const transaction = get({ key: "order-1" });
    const first = newId();
    answering(200, JSON_TYPE, () => committed(first));
    await client.submit(transaction);
    assert.equal(transaction.id, first);
    answering(409, PROBLEM_TYPE, problem({ status: 409, outcome: "aborted", id: newId() }));
    await assert.rejects(client.submit(transaction), { name: "Unknown", id: first });
  });

  test("does not quote a stranger", async () => {
    answering(200, JSON_TYPE, '{"secret":');
    const error = await client.submit(get()).catch((thrown) => thrown);
    assert.ok(error instanceof Unknown && !error.message.includes("secret"), error.message);
  });

  test("is clear where Assent speaks", async () => {
    answering(200, { "content-type": "Application/JSON; charset=utf-8" }, committed);
    const done = await client.submit(get());
    assert.ok(done instanceof Committed);
    assert.deepEqual(done.replies.bank, ["v"]);
    answering(503, PROBLEM_TYPE, (id) => problem({ outcome: "aborted", id }));
    await assert.rejects(client.submit(get()), Aborted);
    answering(503, PROBLEM_TYPE, problem({}));
    await assert.rejects(client.submit(get()), Rejected);
  });

  test("sends the same again, and a refusal then says nothing of the first copy", async () => {
    const transaction = get();
    answering(503, PROBLEM_TYPE, problem({}));
    await assert.rejects(client.submit(transaction), Rejected);
    answer = (response) => response.socket.destroy();
    await assert.rejects(client.submit(transaction), Unknown);
    answering(503, PROBLEM_TYPE, problem({}));
    await assert.rejects(client.submit(transaction), (error) => {
      assert.ok(error instanceof Unknown);
      assert.equal(error.code, "overloaded");
      return true;
    });
    answering(200, JSON_TYPE, committed);
    await client.submit(transaction);
    assert.deepEqual(new Set(heard.map(({ body }) => JSON.stringify(body))).size, 1);
  });

  test("that is refused says nothing of a copy that is known to have had an outcome", async () => {
    const refused = () => answering(401, PROBLEM_TYPE, problem({ status: 401, code: "denied" }));
    const transaction = get();
    answering(200, JSON_TYPE, committed);
    await client.submit(transaction);
    refused();
    await assert.rejects(client.submit(transaction), { name: "Unknown", code: "denied" });
    const other = get();
    answering(409, PROBLEM_TYPE, (id) => problem({ status: 409, outcome: "aborted", id }));
    await assert.rejects(client.submit(other), Aborted);
    refused();
    await assert.rejects(client.submit(other), { name: "Unknown", code: "denied" });
  });

  test("that is refused says nothing of a copy that is under way", async () => {
    const transaction = get();
    let first;
    const isHeard = new Promise((resolve) => {
      answer = (response) => resolve((first = response));
    });
    const submitting = client.submit(transaction);
    await isHeard;
    answering(503, PROBLEM_TYPE, problem({}));
    await assert.rejects(client.submit(transaction), { name: "Unknown", code: "overloaded" });
    first.writeHead(503, PROBLEM_TYPE).end(problem({}));
    await assert.rejects(submitting, Rejected);
  });

  test("of an interactive transaction is unclear if it tells of another one", async () => {
    const begun = (id) => JSON.stringify({ id, outcome: "active", seq: 0 });
    answer = (response, { body }) => response.writeHead(201, JSON_TYPE).end(begun(body.id));
    const tx = await client.begin();
    const strange = problem({ status: 409, outcome: "aborted", id: newId() });
    answer = (response) => response.writeHead(409, PROBLEM_TYPE).end(strange);
    await assert.rejects(tx.op("bank", ["GET", "k"]), { name: "Unknown", id: tx.id });
    await assert.rejects(tx.abort(), Unknown);
    await assert.rejects(client.interactive(tx.id, 0).commit(), { name: "Unknown", id: tx.id });
  });

  test("says the key, the token and the wait", async () => {
    answering(200, JSON_TYPE, () => committed(newId()));
    const own = new Client(`${addressOf(server)}/below/`, { token: "t0ken" });
    const transaction = get({ key: "order-4711" });
    assert.equal(transaction.id, null);
    const done = await own.submit(transaction, { waitMs: 1_001 });
    assert.equal(transaction.id, done.id);
    const [{ url, headers, body }] = heard;
    assert.equal(url, "/below/v1/transactions");
    assert.equal(headers["idempotency-key"], "order-4711");
    assert.equal(headers.authorization, "Bearer t0ken");
    assert.equal(headers.prefer, "wait=2");
    assert.ok(!("id" in body));
  });

  test("that asks for one transaction believes nothing of another", async () => {
    const id = newId();
    answer = (response) => response.writeHead(200, JSON_TYPE).end(committed(newId()));
    await assert.rejects(client.attach(id), Unknown);
    await assert.rejects(client.describe(id), Unknown);
    answer = (response) => response.writeHead(200, JSON_TYPE).end(committed(id));
    assert.equal((await client.attach(id.toUpperCase())).id, id);
  });

  test("of an interactive transaction: a refusal says nothing of an earlier copy", async () => {
    const active = (id, seq) => JSON.stringify({ id, outcome: "active", seq, replies: ["v"] });
    answer = (response, { body }) => response.writeHead(201, JSON_TYPE).end(active(body.id, 0));
    const tx = await client.begin();
    const lost = (response) => response.socket.destroy();
    const refused = (response) => response.writeHead(503, PROBLEM_TYPE).end(problem({}));

    answer = lost;
    await assert.rejects(tx.op("bank", ["GET", "k"]), Unknown);
    answer = refused;
    await assert.rejects(tx.again(), { name: "Unknown", code: "overloaded" });
    answer = (response) => response.writeHead(200, JSON_TYPE).end(active(tx.id, 1));
    assert.deepEqual(await tx.again(), ["v"]);

    answer = refused;
    await assert.rejects(tx.commit(), { name: "Rejected", code: "overloaded" });
    assert.equal(tx.isActive, true);
    answer = lost;
    await assert.rejects(tx.commit(), Unknown);
    answer = refused;
    await assert.rejects(tx.commit(), { name: "Unknown", code: "overloaded" });
    assert.equal(tx.isActive, false);
  });

  test("ends in time, also where fetch does not", async () => {
    const never = () => new Promise(() => {});
    const body = { getReader: () => ({ read: never }) };
    const stuck = async () => ({ status: 200, headers: new Headers(), body });
    for (const fetch of [never, stuck]) {
      const hasty = new Client(addressOf(server), { requestTimeoutMs: 30, fetch });
      const late = { name: "Unknown", message: /no answer within 30 ms/ };
      await assert.rejects(hasty.submit(get(), { waitMs: 0 }), late);
      const controller = new AbortController();
      const slow = new Client(addressOf(server), { fetch });
      const submitting = slow.submit(get(), { signal: controller.signal });
      controller.abort(new Error("enough"));
      await assert.rejects(submitting, { name: "Unknown", message: "enough" });
    }
  });

  test("settles each time where an answer says gzip and is none", async () => {
    answering(200, { ...JSON_TYPE, "content-encoding": "gzip" }, committed);
    const hasty = new Client(addressOf(server), { requestTimeoutMs: 200 });
    for (let times = 0; times < 4; times += 1) {
      await assert.rejects(hasty.submit(get(), { waitMs: 0 }), Unknown);
    }
    assert.ok(heard.every(({ headers }) => headers["accept-encoding"] === "identity"));
  });

  test("is not sent where TLS fails before it, and unclear where TLS fails behind it", async () => {
    const hears = addressOf(server).replace("http:", "https:");
    await assert.rejects(new Client(hears).submit(get()), { name: "Rejected", code: "not_sent" });
    const closes = await listen(net.createServer((socket) => socket.destroy()));
    const closing = addressOf(closes).replace("http:", "https:");
    await assert.rejects(new Client(closing).submit(get()), { name: "Rejected", code: "not_sent" });
    await close(closes);
    // In the words of a handshake that failed; but fetch did not say that there was no connection.
    const code = "ERR_SSL_WRONG_VERSION_NUMBER";
    const cause = Object.assign(new Error("wrong version"), { code });
    const fetch = () => Promise.reject(new TypeError("fetch failed", { cause }));
    await assert.rejects(new Client(hears, { fetch }).submit(get()), Unknown);
    assert.equal(heard.length, 0);
  });

  test("that its signal forbids beforehand was sent to nobody", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    const transaction = get();
    await assert.rejects(client.submit(transaction, { signal }), { message: "enough" });
    assert.equal(transaction.coordinator, null);
    const tx = client.interactive(newId(), 0);
    await assert.rejects(tx.commit({ signal }), { message: "enough" });
    assert.equal(tx.isActive, true);
    await assert.rejects(client.begin({ signal }), { message: "enough" });
    assert.equal(heard.length, 0);
  });

  test("is refused in words where it is none", async () => {
    const transaction = /a Transaction is submitted/;
    for (const none of [{}, null, undefined, "t", () => {}]) {
      await assert.rejects(client.submit(none), { name: "TypeError", message: transaction });
    }
    const write = { name: "TypeError", message: /write is a function/ };
    await assert.rejects(client.transaction(get()), write);
    await assert.rejects(client.run(get()), { name: "TypeError", message: /work is a function/ });
    const signal = { name: "TypeError", message: /signal is an AbortSignal/ };
    for (const none of [5, null, {}, new AbortController()]) {
      await assert.rejects(client.submit(get(), { signal: none }), signal);
      await assert.rejects(client.begin({ signal: none }), signal);
      await assert.rejects(client.attach(newId(), { signal: none }), signal);
    }
    for (const none of [5, null]) {
      await assert.rejects(client.submit(get(), none), TypeError);
      await assert.rejects(client.transaction(() => {}, none), /is no object/);
      await assert.rejects(client.begin(none), /is no object/);
      await assert.rejects(client.run(() => {}, none), /is no object/);
      await assert.rejects(client.attach(newId(), none), /is no object/);
    }
    assert.equal(heard.length, 0);
  });

  test("ends in time, and when it is told to", async () => {
    answer = () => {};
    const hasty = new Client(addressOf(server), { requestTimeoutMs: 30 });
    await assert.rejects(hasty.submit(get(), { waitMs: 0 }), (error) => {
      assert.ok(error instanceof Unknown);
      assert.match(error.message, /no answer within 30 ms/);
      return true;
    });
    const controller = new AbortController();
    answer = () => controller.abort(new Error("enough"));
    const { signal } = controller;
    await assert.rejects(client.submit(get(), { signal }), (error) => {
      assert.ok(error instanceof Unknown);
      assert.equal(error.cause.message, "enough");
      return true;
    });
    heard = [];
    await assert.rejects(client.submit(get(), { signal }), { message: "enough" });
    assert.equal(heard.length, 0);
  });
});

describe("a token", () => {
  const texts = ["", " ", "a\nsecret", "secret\r\nx: y", "secret€", "ü-secret", "a\0secret"];
  for (const token of [...texts, 5, null]) {
    test(`that no header can carry is refused, and not shown: ${JSON.stringify(token)}`, () => {
      const isRefused = (error) => {
        assert.ok(error instanceof TypeError, error);
        assert.doesNotMatch(`${error.message} ${error.cause}`, /secret/);
        return true;
      };
      assert.throws(() => new Client("http://127.0.0.1:1", { token }), isRefused);
      assert.throws(() => hookHandler(() => {}, { token }), isRefused);
    });
  }

  test("is taken from a file that ends with a line break", async () => {
    let said;
    const fetch = async (_, { headers }) => {
      said = headers.authorization;
      return new Response("");
    };
    const client = new Client("http://127.0.0.1:1", { token: "t0ken\n", fetch });
    await assert.rejects(client.submit(get()), Unknown);
    assert.equal(said, "Bearer t0ken");
    const handler = hookHandler(() => null, { token: "t0ken\n" });
    const asked = { method: "POST", headers: { authorization: "Bearer t0ken" }, body: "[]" };
    assert.equal((await handler(new Request("http://hook", asked))).status, 400);
  });
});

describe("several coordinators", () => {
  const alive = async (handler) => {
    const server = await listen(http.createServer(handler));
    return { server, url: addressOf(server) };
  };
  const nobody = async () => {
    const server = await listen(http.createServer());
    const url = addressOf(server);
    await close(server);
    return url;
  };
  const notFound = (_, response) =>
    response.writeHead(404, PROBLEM_TYPE).end(problem({ status: 404, code: "not_found" }));

  test("are asked in turn while nothing was sent, and then only that one", async () => {
    let heard = 0;
    const { server, url } = await alive((request, response) => {
      heard += 1;
      request.resume();
      response.socket.destroy();
    });
    const dead = await nobody();
    const client = new Client([dead, url, dead]);
    const transaction = get();
    await assert.rejects(client.submit(transaction), Unknown);
    assert.equal(transaction.coordinator, url);
    await close(server);
    // Not sent this time, and what became of the first copy is not known.
    await assert.rejects(client.submit(transaction), (error) => {
      assert.ok(error instanceof Unknown);
      assert.equal(error.code, "not_sent");
      assert.equal(error.coordinator, url);
      return true;
    });
    assert.equal(heard, 1);
  });

  test("get no second copy of what is under way at another one", async () => {
    const first = await alive((request, response) => {
      request.resume();
      // It goes away while it works on the first copy.
      first.server.close();
      again = client.submit(transaction).catch((error) => error);
      again.then(() => response.socket.destroy());
    });
    let heard = 0;
    const second = await alive(() => (heard += 1));
    const client = new Client([first.url, second.url]);
    const transaction = get();
    let again;
    await assert.rejects(client.submit(transaction), Unknown);
    assert.equal((await again).code, "not_sent");
    assert.equal(heard, 0);
    await close(second.server);
  });

  test("are not asked for a kept id that another one may have", async () => {
    const dead = await nobody();
    const several = new Client([dead, "http://127.0.0.1:1"]);
    await assert.rejects(several.submit(get({ id: newId() })), TypeError);
    await assert.rejects(several.submit(get({ key: "order-1" })), TypeError);
    await assert.rejects(several.begin({ id: newId() }), TypeError);
    assert.throws(() => several.interactive(newId(), 1), TypeError);
    await assert.rejects(several.submit(get({ id: newId(), coordinator: dead })), Rejected);
    const stranger = get({ id: newId(), coordinator: "http://127.0.0.1:2" });
    await assert.rejects(several.submit(stranger), TypeError);
    await assert.rejects(new Client(dead).submit(get({ id: newId() })), Rejected);
  });

  test("may know the id if they could not be asked", async () => {
    const { server, url } = await alive(notFound);
    const dead = await nobody();
    const code = (client) => client.attach(newId()).catch((error) => error.code);
    assert.equal(await code(new Client([url, url])), "not_found");
    assert.equal(await code(new Client([url, dead])), "not_sent");
    assert.equal(await code(new Client([dead, url])), "not_sent");
    await close(server);
  });

  test("are http or https, and have no password", () => {
    const more = ["http://u:p@a", "http://a?b", "http://a#b"];
    for (const url of ["", "bank:7700", "ftp://a", ...more, []]) {
      assert.throws(() => new Client(url), TypeError, String(url));
    }
    assert.deepEqual(new Client("https://a:1/x/").coordinators, ["https://a:1/x"]);
    assert.throws(() => new Client("http://a", { tokn: "x" }), TypeError);
    assert.throws(() => new Client("http://a", { token: undefined }), TypeError);
  });
});
