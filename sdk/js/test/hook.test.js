// The hook helper: what the agent is answered, by each kind of server.

import assert from "node:assert/strict";
import http from "node:http";
import { describe, test } from "node:test";

import { Veto, answerHook, hookHandler } from "assent";

import { addressOf, close, listen } from "../support/world.js";

const LIMIT = 100;
const ask = (fields) => ({ txid: "t.1.1.0", id: "i", participant: "credit", reads: [], ...fields });

async function limit({ input }, stage) {
  if (!Number.isSafeInteger(input?.amount)) throw new Veto("bad_input", "an amount is needed");
  const [a, b] = await Promise.all([stage.read(["GET", "owes:a"]), stage.read(["GET", "owes:b"])]);
  const most = Number((await stage.read(["GET", "limit"])) ?? LIMIT);
  const owes = Number(a ?? 0) + Number(b ?? 0) + input.amount;
  if (owes > most) throw new Veto("limit_exceeded", `${owes} is above ${most}`);
  stage.op(["INCRBY", "owes:a", input.amount], { expect: { le: most } });
  return { owes };
}

describe("a hook", () => {
  const input = { amount: 30 };

  test("reads, is called again with the replies, and then votes", async () => {
    const [a, b, most] = ["owes:a", "owes:b", "limit"].map((key) => ({ cmd: ["GET", key] }));
    assert.deepEqual(await answerHook(limit, ask({ input })), { read: [a, b] });
    assert.deepEqual(await answerHook(limit, ask({ input, reads: ["5", null] })), { read: [most] });
    assert.deepEqual(await answerHook(limit, ask({ input, reads: ["5", null, "50"] })), {
      ops: [{ cmd: ["INCRBY", "owes:a", 30], expect: { le: 50 } }],
      reply: { owes: 35 },
    });
    const veto = { code: "limit_exceeded", reason: "105 is above 100" };
    assert.deepEqual(await answerHook(limit, ask({ input, reads: ["5", "70", null] })), { veto });
  });

  test("vetoes what it does not understand", async () => {
    const { veto } = await answerHook(limit, ask({ input: "what?" }));
    assert.equal(veto.code, "bad_input");
  });

  test("may have no reply and no ops", async () => {
    assert.deepEqual(await answerHook(() => {}, ask({ input })), { ops: [] });
    assert.deepEqual(await answerHook(() => null, ask({ input })), { ops: [], reply: null });
  });

  test("reads also where it catches everything", async () => {
    const careless = async (_, stage) => {
      try {
        return await stage.read(["GET", "k"]);
      } catch {
        throw new Veto("failed", "it looked like an error");
      }
    };
    const answered = (reads) => answerHook(careless, ask({ input, reads }));
    assert.deepEqual(await answered([]), { read: [{ cmd: ["GET", "k"] }] });
    assert.deepEqual(await answered(["v"]), { ops: [], reply: "v" });
  });

  test("that does not await a read ends no process, and is asked again", async () => {
    const forgetful = (_, stage) => {
      stage.read(["GET", "k"]);
      return "yes";
    };
    const unhandled = [];
    const note = (error) => unhandled.push(error);
    process.on("unhandledRejection", note);
    try {
      const read = { read: [{ cmd: ["GET", "k"] }] };
      assert.deepEqual(await answerHook(forgetful, ask({ input })), read);
      const wrong = (_, stage) => void stage.read("GET k");
      await assert.rejects(answerHook(wrong, ask({ input })), TypeError);
      // Node tells of it when the tasks that are there now are done.
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      process.off("unhandledRejection", note);
    }
    assert.deepEqual(unhandled, []);
  });

  test("that fails is no veto", async () => {
    await assert.rejects(
      answerHook(() => {
        throw new Error("down");
      }, ask({ input })),
      { message: "down" },
    );
  });
});

describe("the handler", () => {
  const posted = (body, headers = {}) => ({ method: "POST", body, headers });
  const question = JSON.stringify(ask({ input: { amount: 2 ** 40 } }));
  const exact = question.replace("1099511627776", "9007199254740993");
  const errors = [];
  const echo = async ({ input }) => {
    if (input.fail) throw new Error("down");
    return input.amount;
  };
  const handler = hookHandler(echo, { token: "t0ken", onError: (error) => errors.push(error) });
  const token = { authorization: "Bearer t0ken" };

  const cases = [
    ["an exact answer", posted(exact, token), 200, '{"ops":[],"reply":9007199254740993}'],
    ["no token", posted(question), 401],
    ["another token", posted(question, { authorization: "Bearer t0ke" }), 401],
    ["no POST", { method: "GET", headers: token }, 405],
    ["no JSON", posted("{", token), 400],
    ["no question", posted("[]", token), 400],
    ["no UTF-8", posted(new Uint8Array([255]), token), 400],
    ["a hook that fails", posted(question.replace(/{"amount[^}]*}/, '{"fail":true}'), token), 500],
  ];

  for (const [name, request, status, body] of cases) {
    test(`answers the same by node:http and by fetch: ${name}`, async () => {
      const server = await listen(http.createServer(handler));
      const byNode = await fetch(addressOf(server), request);
      const byFetch = await handler(new Request("http://hook", request));
      await assertAnswer(byNode, status, body);
      await assertAnswer(byFetch, status, body);
      await close(server);
    });
  }

  async function assertAnswer(response, status, body) {
    assert.equal(response.status, status);
    const text = await response.text();
    if (body !== undefined) assert.equal(text, body);
    const type = status === 200 ? "application/json" : "text/plain; charset=utf-8";
    assert.equal(response.headers.get("content-type"), type);
  }

  test("refuses an option that is misspelt or empty: it would ask for no token", () => {
    for (const options of [{ tokn: "x" }, { token: undefined }, { integers: "int" }, 5]) {
      assert.throws(() => hookHandler(echo, options), TypeError, JSON.stringify(options));
    }
    assert.throws(() => hookHandler({}), /a hook is a function/);
    assert.throws(() => hookHandler(echo, { onError: 5 }), /onError is a function/);
  });

  test("tells of what the hook threw", () => {
    assert.deepEqual(errors.map(({ message }) => message), ["down", "down"]);
  });

  /** What it answers to a request that is none of node:http's. */
  async function answered(request) {
    const said = {};
    const response = {
      writeHead: (status) => Object.assign(said, { status }),
      end: (text) => Object.assign(said, { text }),
    };
    await handler({ method: "POST", headers: token, ...request }, response);
    return said;
  }

  test("takes a body that a middleware has read", async () => {
    for (const body of [JSON.parse(question), question, Buffer.from(question)]) {
      const said = await answered({ body });
      assert.deepEqual(said, { status: 200, text: '{"ops":[],"reply":1099511627776}' });
    }
  });

  test("reads no body without an end", async () => {
    let chunks = 0;
    const endless = async function* () {
      for (const chunk = new Uint8Array(1024 * 1024).fill(32); ; chunks += 1) yield chunk;
    };
    const said = await answered({ [Symbol.asyncIterator]: endless });
    assert.equal(said.status, 400);
    assert.equal(chunks, 64);
  });
});
