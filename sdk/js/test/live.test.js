// What JavaScript adds to the contract, against a live coordinator.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Aborted, Client, Rejected, Transaction, Unknown } from "assent";

import { startWorld } from "../support/world.js";

describe("a live coordinator", () => {
  let world;
  let client;
  before(async () => {
    world = await startWorld();
    client = new Client(world.addresses.live);
  });
  after(() => world?.stop());

  const read = async (key, participant = "bank") =>
    (await client.transaction((tx) => tx.op(participant, ["GET", key]))).replies[participant][0];
  const set = (key, value) => client.transaction((tx) => tx.op("bank", ["SET", key, value]));

  test("sends nothing if the function that writes the transaction throws", async () => {
    const writing = client.transaction(async (tx) => {
      tx.op("bank", ["SET", "throws:k", 1]);
      throw new Error("no");
    });
    await assert.rejects(writing, { message: "no" });
    assert.equal(await read("throws:k"), null);
  });

  test("can be sent again by its error", async () => {
    const lossy = new Client(world.addresses.lossy);
    world.proxy.lose("answer");
    const add = lossy.transaction((tx) => tx.op("bank", ["INCRBY", "error:n", 1]));
    const error = await add.catch((thrown) => thrown);
    assert.ok(error instanceof Unknown);
    assert.equal((await lossy.submit(error.transaction)).id, error.id);
    assert.equal(await read("error:n"), "1");
  });

  test("does a transaction with a key of one's own once, and not another one", async () => {
    const order = (amount) =>
      client.transaction((tx) => tx.op("bank", ["INCRBY", "own:n", amount]), { key: "order-4711" });
    const first = await order(1);
    assert.equal((await order(1)).id, first.id);
    await assert.rejects(order(2), (error) => {
      assert.ok(error instanceof Rejected);
      assert.equal(error.code, "idempotency_mismatch");
      assert.equal(error.key, "order-4711");
      return true;
    });
    assert.equal(await read("own:n"), "1");
    const kept = new Transaction({ key: "order-4712" }).op("bank", ["INCRBY", "own:n", 1]);
    assert.equal((await client.submit(kept)).id, (await client.submit(kept)).id);
    assert.equal(await read("own:n"), "2");
  });

  test("replies with all integers as was asked for", async () => {
    const big = 2n ** 62n;
    const add = (n) => (tx) => tx.op("bank", ["INCRBY", "ints:n", n]);
    const as = (integers) => new Client(world.addresses.live, { integers });
    assert.equal((await client.transaction(add(5))).replies.bank[0], 5);
    assert.equal((await as("bigint").transaction(add(1))).replies.bank[0], 6n);
    assert.equal((await as("string").transaction(add(1))).replies.bank[0], "7");
    assert.equal((await client.transaction(add(big))).replies.bank[0], big + 7n);
  });

  test("shows what a false expectation met", async () => {
    await set("met:n", 5);
    const expecting = (cmd, expect) => client.transaction((tx) => tx.op("bank", cmd, { expect }));
    await assert.rejects(expecting(["DECRBY", "met:n", 7], { ge: 0 }), (error) => {
      assert.ok(error instanceof Aborted);
      const { code, retryable, participant, op, reply } = error;
      const found = { code, retryable, participant, op, reply };
      const wanted = { code: "expectation_failed", retryable: false, participant: "bank" };
      assert.deepEqual(found, { ...wanted, op: 0, reply: -2 });
      return true;
    });
    await assert.rejects(expecting(["GET", "met:none"], { ne: null }), { reply: null });
    const nil = await expecting(["GET", "met:none"], { eq: 1 }).catch((error) => error.problem);
    assert.ok("reply" in nil);
  });

  describe("an interactive transaction", () => {
    test("commits what a function did, and returns what it returned", async () => {
      await set("run:n", 100);
      const left = await client.run(async (tx) => {
        const n = Number(await tx.op("bank", ["GET", "run:n"])) - 30;
        await tx.op("bank", ["SET", "run:n", n]);
        return n;
      });
      assert.equal(left, 70);
      assert.equal(await read("run:n"), "70");
    });

    test("is given up if its function throws, or aborts it", async () => {
      let tx;
      const throwing = client.run(async (its) => {
        tx = its;
        await tx.op("bank", ["SET", "gone:n", 1]);
        throw new Error("no");
      });
      await assert.rejects(throwing, { message: "no" });
      await assert.rejects(client.attach(tx.id), Aborted);
      const aborting = client.run(async (its) => {
        await its.op("bank", ["SET", "gone:n", 1]);
        await its.abort();
      });
      await assert.rejects(aborting, { name: "Aborted", code: "cancelled" });
      assert.equal(await read("gone:n"), null);
    });

    test("is not told as done by a function that caught why it is not", async () => {
      await set("caught:n", 1);
      let calls = 0;
      const changing = client.run(
        async (tx) => {
          calls += 1;
          await tx.op("bank", ["GET", "caught:n"]);
          await set("caught:n", calls + 1);
          await tx.op("bank", ["GET", "caught:n"]).catch(() => {});
        },
        { attemptsMax: 2 },
      );
      await assert.rejects(changing, { name: "Aborted", code: "read_changed" });
      assert.equal(calls, 2);
      const lossy = new Client(world.addresses.lossy);
      const losing = lossy.run(async (tx) => {
        await tx.op("bank", ["SET", "caught:lost", 1]);
        world.proxy.lose("answer");
        await tx.commit().catch(() => {});
      });
      await assert.rejects(losing, { name: "Unknown" });
    });

    test("may be committed by its function, or left empty", async () => {
      const word = await client.run((tx) => {
        tx.op("bank", ["SET", "hasty:n", 1]);
        tx.commit();
        return "committed";
      });
      assert.equal(word, "committed");
      assert.equal(await read("hasty:n"), "1");
      let tx;
      assert.equal(await client.run((its) => void (tx = its)), undefined);
      await assert.rejects(client.attach(tx.id), { name: "Aborted", code: "cancelled" });
      await client.run(({ id, seq }) => client.interactive(id, seq).op("bank", ["SET", "on:m", 1]));
      assert.equal(await read("on:m"), "1");
    });

    test("is known not to be done if an answer was lost before its commit", async () => {
      const lossy = new Client(world.addresses.lossy);
      let calls = 0;
      const running = lossy.run(async (tx) => {
        calls += 1;
        await tx.op("bank", ["SET", "before:n", 1]);
        world.proxy.lose("answer");
        await tx.op("bank", ["SET", "before:m", 1]);
      });
      await assert.rejects(running, { name: "Rejected", retryable: true });
      assert.equal(calls, 1);
      world.proxy.lose("answer");
      await assert.rejects(lossy.run(() => {}), { name: "Rejected", retryable: true });
      assert.equal(await read("before:n"), null);
      for (const attemptsMax of [0, NaN, "x"]) {
        await assert.rejects(client.run(() => {}, { attemptsMax }), TypeError);
      }
    });

    test("is unclear if an answer was lost, and so was that to giving it up", async () => {
      const lossy = new Client(world.addresses.lossy);
      const running = lossy.run(async (tx) => {
        await tx.op("bank", ["SET", "beyond:n", 1]);
        world.proxy.lose("answer");
        await tx.op("bank", ["SET", "beyond:m", 1]).finally(() => world.proxy.lose("request"));
      });
      await assert.rejects(running, { name: "Unknown" });
    });

    test("makes nothing of what is unclear about another transaction", async () => {
      const lossy = new Client(world.addresses.lossy);
      const other = new Transaction().op("bank", ["INCRBY", "other:n", 1]);
      const running = client.run(async (tx) => {
        await tx.op("bank", ["GET", "other:n"]);
        world.proxy.lose("answer");
        await lossy.submit(other);
      });
      await assert.rejects(running, { name: "Unknown", id: other.id });
      assert.equal(await read("other:n"), "1");
    });

    test("is given up at the end of its block, unless a commit was asked for", async () => {
      const left = await client.begin();
      await left.op("bank", ["SET", "block:n", 1]);
      await left[Symbol.asyncDispose]();
      await assert.rejects(left.commit(), Aborted);
      const done = await client.begin();
      await done.op("bank", ["SET", "block:m", 1]);
      await done.commit();
      await done[Symbol.asyncDispose]();
      assert.equal((await client.attach(done.id)).id, done.id);
      assert.equal(await read("block:n"), null);
      assert.equal(await read("block:m"), "1");
    });

    test("is not given up where the answer to its commit was lost", async () => {
      const tx = await new Client(world.addresses.lossy).begin();
      await tx.op("bank", ["SET", "unclear:n", 1]);
      world.proxy.lose("answer");
      await assert.rejects(tx.commit(), Unknown);
      await tx.close();
      assert.equal((await client.attach(tx.id)).id, tx.id);
    });

    test("is not given up where its commit was lost, which can be said again", async () => {
      const tx = await new Client(world.addresses.lossy).begin();
      await tx.op("bank", ["SET", "unheard:n", 1]);
      world.proxy.lose("request");
      await assert.rejects(tx.commit(), Unknown);
      await tx.close();
      assert.equal((await tx.commit()).id, tx.id);
    });

    test("does calls that were made at once one after the other", async () => {
      const tx = await client.begin();
      const adds = [1, 2, 3].map((n) => tx.op("bank", ["INCRBY", "line:n", n]));
      assert.deepEqual(await Promise.all(adds), [1, 3, 6]);
      await tx.commit();
      assert.equal(await read("line:n"), "6");
    });

    test("does not commit past a call that failed before it", async () => {
      await set("past:text", "x");
      const tx = await client.begin();
      const fails = tx.op("bank", ["LPUSH", "past:text", 1]);
      const behind = tx.op("bank", ["SET", "past:n", 1]);
      const commit = tx.commit();
      const why = { name: "Rejected", code: "wrong_type" };
      await assert.rejects(fails, why);
      await assert.rejects(behind, why);
      await assert.rejects(commit, why);
      assert.equal(tx.isActive, true);
      await tx.abort();
      assert.equal(await read("past:n"), null);
    });

    test("says no more until a lost answer was asked for", async () => {
      const tx = await new Client(world.addresses.lossy).begin();
      world.proxy.lose("request");
      await assert.rejects(tx.op("bank", ["INCRBY", "lost:n", 1]), Unknown);
      const refused = { name: "Rejected", code: "wrong_state", message: /again/ };
      await assert.rejects(tx.op("bank", ["INCRBY", "lost:n", 5]), refused);
      await assert.rejects(tx.commit(), refused);
      assert.equal(tx.isActive, true);
      world.proxy.lose("answer");
      await assert.rejects(tx.again(), Unknown);
      assert.deepEqual(await tx.again(), [1]);
      assert.equal(await tx.again(), null);
      await tx.commit();
      assert.equal(await read("lost:n"), "1");
    });

    test("can be handed on by its id and the number of its last call", async () => {
      const first = await client.begin({ name: "handed on", timeoutMs: 2_000 });
      await first.op("bank", ["SET", "on:n", 1]);
      const next = client.interactive(first.id, first.seq);
      assert.equal(await next.op("bank", ["GET", "on:n"]), "1");
      await next.commit();
      assert.equal((await client.describe(first.id)).name, "handed on");
    });

    test("has expectations, and bytes", async () => {
      const tx = await client.begin();
      const bytes = new Uint8Array([255, 0]);
      await tx.op("bank", ["SET", "bytes:k", bytes]);
      assert.deepEqual(await tx.op("bank", ["GET", "bytes:k"]), bytes);
      const expect = { eq: "other" };
      const refused = tx.op("bank", ["GET", "bytes:k"], { expect });
      await assert.rejects(refused, { name: "Aborted", code: "expectation_failed", reply: bytes });
      await assert.rejects(tx.keepAlive(), { name: "Aborted", code: "expectation_failed" });
    });

    test("goes on when an op is refused, and ends with its abort", async () => {
      const tx = await client.begin();
      await tx.op("bank", ["SET", "goes-on:k", "text"]);
      const refused = tx.op("bank", ["LPUSH", "goes-on:k", 1]);
      await assert.rejects(refused, { name: "Rejected", code: "wrong_type" });
      await tx.keepAlive();
      await tx.abort();
      await assert.rejects(tx.keepAlive(), Aborted);
    });
  });

  test("hands out what a hook has replied", async () => {
    const add = { key: "reply:owes", amount: 30, limit: 100 };
    const done = await client.transaction((tx) =>
      tx.op("shop", ["SET", "reply:n", 1]).op("bank", ["GET", "k"]).input("shop", { add }),
    );
    assert.deepEqual(done.hookReply("shop"), { total: 30 });
    assert.equal(done.hookReply("bank"), undefined);
    assert.equal(done.hookReply("nobody"), undefined);
  });

  test("shows a transaction, whatever its outcome", async () => {
    const transaction = new Transaction({ name: "shown" }).op("bank", ["GET", "k"]);
    await assert.rejects(client.describe(transaction.id), { name: "Unknown", code: "not_found" });
    await client.submit(transaction);
    const { name, outcome, state, branches } = await client.describe(transaction.id);
    assert.deepEqual([name, outcome, state], ["shown", "committed", "ended"]);
    assert.deepEqual(branches[0].replies, [null]);
  });
});
