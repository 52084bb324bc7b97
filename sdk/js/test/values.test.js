// What stands in a command comes through as it is, or is refused before anything is sent.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Transaction, newId } from "assent";

import { parseJson, writeJson } from "../src/json.js";
import { readReply, writeArg } from "../src/values.js";

describe("JSON", () => {
  test("keeps integers exact, and turns no text into a number", () => {
    const text =
      '{"n":9007199254740993,"m":-9223372036854775808,"safe":9007199254740991,"f":1.5e300,' +
      '"s":"9007199254740993","q":"\\"9007199254740993","list":[18446744073709551615]}';
    assert.deepEqual(parseJson(text), {
      n: 9007199254740993n,
      m: -9223372036854775808n,
      safe: 9007199254740991,
      f: 1.5e300,
      s: "9007199254740993",
      q: '"9007199254740993',
      list: [18446744073709551615n],
    });
  });

  test("takes a long text, and nothing that is no JSON", () => {
    const long = `"${"1234567890\\n".repeat(300_000)}"`;
    assert.equal(parseJson(`[${long},9007199254740993]`)[1], 9007199254740993n);
    const long20 = "1".repeat(20);
    for (const text of ["", "{", `{${long20}:1}`, `[0${long20}]`, `${long20}x`]) {
      assert.throws(() => parseJson(text), SyntaxError, text);
    }
  });

  test("writes a bigint as the number that it is", () => {
    const value = { n: 9007199254740993n, s: "1", list: [-1n, { m: 2n ** 64n }] };
    assert.equal(
      writeJson(value),
      '{"n":9007199254740993,"s":"1","list":[-1,{"m":18446744073709551616}]}',
    );
    assert.deepEqual(parseJson(writeJson(value)).n, value.n);
  });
});

describe("an argument", () => {
  test("is text, a number, a bigint or bytes", () => {
    assert.equal(writeArg("ü 😀", "it"), "ü 😀");
    assert.equal(writeArg(-1.5, "it"), -1.5);
    assert.equal(writeArg(2n ** 63n, "it"), "9223372036854775808");
    assert.deepEqual(writeArg(new Uint8Array([255, 0]), "it"), { base64: "/wA=" });
    assert.deepEqual(writeArg(Buffer.from([255, 0]), "it"), { base64: "/wA=" });
    assert.deepEqual(writeArg(new Uint8Array([255, 0]).buffer, "it"), { base64: "/wA=" });
    const large = new Uint8Array(1_000_000).fill(200);
    assert.equal(writeArg(large, "it").base64, Buffer.from(large).toString("base64"));
  });

  test("is refused if it would not arrive as it is", () => {
    const wrong = [2 ** 53, NaN, Infinity, undefined, null, true, {}, [1], "\ud800", new Date(0)];
    for (const value of wrong) {
      const write = () => new Transaction().op("bank", ["SET", "k", value]);
      assert.throws(write, TypeError, String(value));
    }
    assert.throws(() => new Transaction().op("bank", "GET k"), TypeError);
    assert.throws(() => new Transaction().op("bank", []), TypeError);
    assert.throws(() => new Transaction().op("bank", ["SET", , "v"]), TypeError);
  });

  test("is not quoted by the error", () => {
    const secret = { toString: () => "secret" };
    assert.throws(
      () => new Transaction().op("bank", ["SET", "k", secret]),
      (error) => /bank, word 2 is object/.test(error.message) && !/secret/.test(error.message),
    );
  });
});

describe("a transaction", () => {
  const op = (options) => new Transaction().op("bank", ["GET", "k"], options);

  test("loses no guard because a variable was empty", () => {
    const empty = [{ ge: undefined }, { ge: null }, { ge: NaN }];
    for (const expect of [...empty, { exists: 1 }, { eqq: 1 }, []]) {
      assert.throws(() => op({ expect }), TypeError, JSON.stringify(expect));
    }
    assert.throws(() => op({ expect: undefined }), TypeError);
    assert.throws(() => op({ expects: { ge: 0 } }), TypeError);
    assert.throws(() => op({ escrow: undefined }), TypeError);
    for (const expect of [{ eq: null }, { ne: null, ge: 0 }, { exists: false }]) op({ expect });
  });

  test("loses no option because a variable was empty", () => {
    const wrong = [
      { id: undefined },
      { key: undefined },
      { timeoutMs: undefined },
      { timeoutMs: 0.5 },
      { timeout: 5 },
      { id: "1" },
      { id: newId(), key: "order-1" },
      { key: "" },
      { key: "a\nb" },
      { coordinator: "bank:7700" },
    ];
    for (const options of wrong) {
      assert.throws(() => new Transaction(options), TypeError, JSON.stringify(options));
    }
  });

  test("is the JSON of the contract, and does not change any more once it was sent", () => {
    const id = "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e";
    const transfer = new Transaction({ id, name: "transfer", timeoutMs: 5_000, ack: "decided" })
      .op("bank-a", ["DECRBY", "acct:alice", 30], { expect: { ge: 0 } })
      .op("bank-b", ["INCRBY", "acct:bob", 30n], { escrow: true })
      .op("bank-a", ["GET", "acct:alice"])
      .input("credit", { amount: 2n ** 63n });
    const body = transfer.seal();
    assert.deepEqual(parseJson(body), {
      id,
      name: "transfer",
      ack: "decided",
      timeout: "5000ms",
      branches: [
        {
          participant: "bank-a",
          ops: [
            { cmd: ["DECRBY", "acct:alice", 30], expect: { ge: 0 } },
            { cmd: ["GET", "acct:alice"] },
          ],
        },
        { participant: "bank-b", ops: [{ cmd: ["INCRBY", "acct:bob", "30"], escrow: true }] },
        { participant: "credit", ops: [], input: { amount: 2n ** 63n } },
      ],
    });
    assert.throws(() => transfer.op("bank-a", ["GET", "k"]), TypeError);
    assert.equal(transfer.seal(), body);
  });

  test("has something to do, and inputs that JSON can hold", () => {
    assert.throws(() => new Transaction().seal(), TypeError);
    for (const input of [undefined, NaN, [undefined], { f() {} }, { deep: [{ n: Infinity }] }]) {
      assert.throws(() => new Transaction().input("shop", input), TypeError);
    }
    for (const input of [null, false, 0, "", [], { left: undefined, at: new Date(0) }]) {
      new Transaction().input("shop", input).seal();
    }
  });

  test("has a new id, by the time", () => {
    const ids = Array.from({ length: 100 }, () => newId());
    assert.equal(new Set(ids).size, ids.length);
    for (const id of ids) {
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      assert.ok(Math.abs(parseInt(id.replace("-", "").slice(0, 12), 16) - Date.now()) < 60_000);
    }
  });
});

describe("a reply", () => {
  const estimate = { at_least: 1, at_most: 2 };
  const reply = () => [1, 9007199254740993n, "1", null, estimate, { hook: { n: 1 } }];

  test("has the integers that were asked for; what a hook says stays as it is", () => {
    assert.deepEqual(readReply(reply(), "number"), reply());
    assert.deepEqual(readReply(reply(), "bigint"), [
      1n,
      9007199254740993n,
      "1",
      null,
      { at_least: 1n, at_most: 2n },
      { hook: { n: 1 } },
    ]);
    assert.deepEqual(readReply(reply(), "string").slice(0, 2), ["1", "9007199254740993"]);
  });

  test("of a statement has bytes where there are some, whatever its columns are called", () => {
    const odd = { base64: "no bytes!" };
    const row = { n: 1, photo: { base64: "/w==" }, parts: [{ base64: "AAE=" }], doc: odd };
    const read = { n: 1n, photo: Uint8Array.of(255), parts: [Uint8Array.of(0, 1)], doc: odd };
    const hook = [{ hook: { base64: "/w==" } }, { hook: Uint8Array.of(255) }];
    assert.deepEqual(readReply({ rows: [row, hook[0]] }, "bigint"), { rows: [read, hook[1]] });
  });
});

describe("a statement", () => {
  test("stands among the ops of its participant, its parameters as PostgreSQL reads them", () => {
    const tx = new Transaction();
    const params = ["ü", 30, 2n ** 63n, true, null, Uint8Array.of(0, 255), new Date(0), { a: [1] }];
    tx.sql("ledger", "SELECT $1", params, { expect: { exists: true } });
    tx.sql("ledger", "TABLE acct");
    const [first, second] = parseJson(tx.seal()).branches[0].ops;
    const written = ["ü", 30, "9223372036854775808", true, null, "\\x00ff"];
    assert.deepEqual(first, {
      sql: "SELECT $1",
      params: [...written, "1970-01-01T00:00:00.000Z", { a: [1] }],
      expect: { exists: true },
    });
    assert.deepEqual(second, { sql: "TABLE acct", params: [] });
  });

  test("is refused with a parameter that PostgreSQL could not take", () => {
    for (const param of [undefined, NaN, 2 ** 60, Symbol("s"), { a: NaN }, () => 1]) {
      assert.throws(() => new Transaction().sql("ledger", "SELECT $1", [param]), TypeError);
    }
    assert.throws(() => new Transaction().sql("ledger", " "), /statement/);
    assert.throws(() => new Transaction().sql("ledger", "SELECT 1", "x"), /array/);
  });
});
