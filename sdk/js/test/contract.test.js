// What every SDK must do: the cases of sdk/contract, through the public API, against a live
// coordinator.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { Aborted, Client, Rejected, Transaction, Unknown, newId } from "assent";

import { startWorld } from "../support/world.js";

const FILE = new URL("../../contract/cases.json", import.meta.url);
const CASES = JSON.parse(readFileSync(FILE, "utf8"));
/** How long a case may take, in milliseconds: a bound for what hangs, not a measure. */
const CASE_MS_MAX = 30_000;
const LOOK_AGAIN_MS = 20;

describe("the contract of all SDKs", () => {
  /** @type {Awaited<ReturnType<typeof startWorld>>} */
  let world;
  before(async () => (world = await startWorld()));
  after(() => world?.stop());

  for (const { name, promise, steps } of CASES) {
    test(`${name}: ${promise}`, { timeout: CASE_MS_MAX }, async () => {
      const player = new Player(world);
      for (const step of steps) await player.play(step);
    });
  }
});

/** Does the steps of one case. */
class Player {
  /** What was saved under a name: a transaction, of either kind, and the client that has it. */
  #saved = new Map();

  constructor(world) {
    this.world = world;
  }

  async play(step) {
    const result = await this.#do(step).catch((error) => error);
    try {
      this.#compare(result, step.want ?? {});
    } catch (error) {
      throw new Error(`${JSON.stringify(step)}: ${error.message}`, { cause: result });
    }
    if (!("want" in step) && result instanceof Error) throw result;
  }

  async #do(step) {
    const { client, kept } = this.#of(step);
    const wait = "wait_ms" in step ? { waitMs: step.wait_ms } : {};
    switch (step.do) {
      case "run": {
        const id = step.with_id_of && { id: this.#saved.get(step.with_id_of).kept.id };
        const key = step.key && { key: step.key };
        const transaction = write(step.transaction, { ...id, ...key });
        this.#save(step, client, transaction);
        return client.submit(transaction, wait);
      }
      case "repeat":
        return client.submit(kept, wait);
      case "attach":
        return client.attach(step.of === "$fresh" ? newId() : kept.id, wait);
      case "begin": {
        const begun = await client.begin();
        this.#save(step, client, begun);
        return begun;
      }
      case "ops":
        return { replies: await kept.ops(value(step.ops)) };
      case "again":
        return { replies: await kept.again() };
      case "commit":
        return kept.commit(wait);
      case "abort":
        await kept.abort();
        return new Aborted("by abort()", { id: kept.id });
      case "run_function":
        return this.#runFunction(client, step);
      default:
        return this.#doBeside(step, kept);
    }
  }

  /** What is not said to the SDK, but for the transaction that is watched. */
  async #doBeside(step, kept) {
    switch (step.do) {
      case "start": {
        const running = this.play({ as: step.as, ...step.step });
        running.catch(() => {});
        this.#saved.get(step.as).running = running;
        return null;
      }
      case "join":
        return this.#saved.get(step.of).running;
      case "until":
        return this.#until(kept, step);
      case "release":
        return this.world.hook.release(step.hold);
      case "lose":
        return this.world.proxy.lose(step.what);
      default:
        throw new Error(`no step is called ${step.do}`);
    }
  }

  async #runFunction(client, step) {
    let calls = 0;
    let replies;
    const work = async (tx) => {
      calls += 1;
      this.#save(step, client, tx);
      replies = await tx.ops(value(step.ops));
      if (calls === 1) for (const each of step.meanwhile ?? []) await this.play(each);
      if (step.aborts) await tx.abort();
    };
    const options = "attempts_max" in step ? { attemptsMax: step.attempts_max } : {};
    const ended = await client.run(work, options).catch((error) => error);
    return Object.assign(ended ?? {}, { calls, replies });
  }

  async #until({ id }, { participant, state }) {
    const client = this.#client(["live"]);
    for (;;) {
      const view = await client.describe(id).catch(() => ({ branches: [] }));
      const branch = view.branches.find((each) => each.participant === participant);
      if (branch?.state === state) return null;
      await new Promise((wake) => setTimeout(wake, LOOK_AGAIN_MS));
    }
  }

  #of(step) {
    const saved = this.#saved.get(step.of);
    const client = step.via || !saved ? this.#client(step.via ?? ["live"]) : saved.client;
    return { client, kept: saved?.kept };
  }

  #save(step, client, kept) {
    if (step.as) this.#saved.set(step.as, { client, kept });
  }

  #client(via) {
    return new Client(via.map((name) => this.world.addresses[name]));
  }

  #compare(result, want) {
    for (const [field, wanted] of Object.entries(want)) {
      const found = this.#found(result, field, wanted);
      assert.deepEqual(found.is, found.wanted, `${field} of ${result}`);
    }
  }

  /** What there is, and what there should be, in the same form. */
  #found(result, field, wanted) {
    switch (field) {
      case "outcome":
        return { is: outcomeOf(result), wanted };
      case "replies":
        return { is: plain(result.replies), wanted: value(wanted) };
      case "same_id_as":
        return { is: result.id, wanted: this.#saved.get(wanted).kept.id };
      case "holder":
        return { is: result.holder?.id, wanted: this.#saved.get(wanted).kept.id };
      case "veto":
        return { is: pick(result.veto, wanted), wanted };
      default:
        return { is: result[field], wanted: value(wanted) };
    }
  }
}

function outcomeOf(result) {
  if (result instanceof Aborted) return "aborted";
  if (result instanceof Rejected) return "rejected";
  if (result instanceof Unknown) return "unknown";
  if (result instanceof Error) return result.message;
  return result.isActive ? "active" : "committed";
}

/** A transaction of the file, by the SDK. */
function write({ branches, timeout, ...options }, more) {
  const timeoutMs = timeout && { timeoutMs: Number(timeout.replace(/ms$/, "")) };
  const transaction = new Transaction({ ...options, ...timeoutMs, ...more });
  for (const { participant, ops = [], input } of branches) {
    for (const { cmd, ...op } of ops) transaction.op(participant, value(cmd), value(op));
    if (input !== undefined) transaction.input(participant, input);
  }
  return transaction;
}

/** A value of the file in the SDK's form: 64-bit integers, long texts, bytes. */
function value(json) {
  if (Array.isArray(json)) return json.map(value);
  if (typeof json !== "object" || json === null) return json;
  if ("$int" in json) return BigInt(json.$int);
  if ("$repeat" in json) return json.$repeat[0].repeat(json.$repeat[1]);
  if ("base64" in json) return new Uint8Array(Buffer.from(json.base64, "base64"));
  return Object.fromEntries(Object.entries(json).map(([name, item]) => [name, value(item)]));
}

/** The same without the class of its objects. */
function plain(replies) {
  return Array.isArray(replies) || !replies ? replies : { ...replies };
}

function pick(found, wanted) {
  return found && Object.fromEntries(Object.keys(wanted).map((name) => [name, found[name]]));
}
