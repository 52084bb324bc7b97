// Writing a transaction that is sent in one request.

import { checkId, newId } from "./ids.js";
import { checkJson, writeJson } from "./json.js";
import {
  checkObject,
  checkSignal,
  known,
  writeCommand,
  writeExpect,
  writeParams,
} from "./values.js";

/**
 * @typedef {import("./values.js").Arg} Arg
 * @typedef {import("./values.js").Expect} Expect
 * @typedef {import("./values.js").Param} Param
 *
 * @typedef {object} TransactionOptions
 * @property {string} [id] an id that was kept before, a UUIDv7; else it is made here
 * @property {string} [key] an idempotency key of your own, such as an order's number, instead of an
 *   id; 1 to 255 printable ASCII characters
 * @property {string} [coordinator] the one to send it to; needed with an `id` or a `key` that was
 *   used before, where the client has several
 * @property {string} [name] a label for people
 * @property {number} [timeoutMs] how long the decision may take; 5 s by default
 * @property {"applied" | "decided"} [ack] when `committed` is answered
 *
 * @typedef {object} OpOptions
 * @property {Expect} [expect] what the reply must be; else everything is aborted
 * @property {boolean} [escrow] whether the counter is shared with others that do the same
 *
 * @typedef {object} WaitOptions
 * @property {number} [waitMs] how long to wait for the outcome, at most 60 s; a part of a second is
 *   a whole one
 * @property {AbortSignal} [signal] ends the wait; what was sent goes on, so the outcome is unknown
 */

const OPTIONS = ["id", "key", "coordinator", "name", "timeoutMs", "ack"];
const KEY = /^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$/;
/** The coordinator's own default. */
const TIMEOUT_DEFAULT_MS = 5_000;

/**
 * A transaction: ops at participants, under an id that is made here. The id is the idempotency key
 * too: submitted again, it is the same transaction, done once.
 */
export class Transaction {
  /** @type {Map<string, {ops: object[], input?: unknown}>} */
  #branches = new Map();
  /** @type {string | null} */
  #body = null;
  #fields;

  /** @param {TransactionOptions} [options] */
  constructor(options = {}) {
    const given = known(options, OPTIONS, "the transaction");
    const { id, key, coordinator, name, timeoutMs, ack } = given;
    if (id !== undefined && key !== undefined) throw new TypeError("give an id or a key, not both");
    if (key !== undefined && (typeof key !== "string" || !KEY.test(key))) {
      throw new TypeError("a key has 1 to 255 printable ASCII characters, no space at its ends");
    }
    if (timeoutMs !== undefined) checkMs(timeoutMs, "timeoutMs");
    /**
     * The idempotency key that was given.
     *
     * @type {string | null}
     */
    this.key = key ?? null;
    /**
     * Its id. With a `key`, the coordinator makes it, and it is null before the answer.
     *
     * @type {string | null}
     */
    this.id = key === undefined ? (id === undefined ? newId() : checkId(id)) : null;
    /**
     * The coordinator that it was sent to, and that alone knows it; null while it was sent to none.
     *
     * @type {string | null}
     */
    this.coordinator = coordinator === undefined ? null : checkCoordinator(coordinator);
    /** Whether id or key may have been sent by somebody before. */
    this.isKept = id !== undefined || key !== undefined;
    /** Whether a coordinator has taken it, or may have. */
    this.mayBeTaken = false;
    /** How many copies of it are under way. */
    this.underWay = 0;
    this.timeoutMs = timeoutMs ?? TIMEOUT_DEFAULT_MS;
    this.#fields = { name, ack, timeout: timeoutMs === undefined ? undefined : `${timeoutMs}ms` };
  }

  /**
   * Adds a Redis command at a participant. The ops of a participant run in their order.
   *
   * @param {string} participant
   * @param {Arg[]} cmd such as `["DECRBY", "acct:alice", 30]`
   * @param {OpOptions} [options]
   * @returns {this}
   * @throws {TypeError} if a value is none that Redis could take, or the transaction was sent
   */
  op(participant, cmd, options = {}) {
    this.#branch(participant).ops.push(writeOp(cmd, options, `${participant}`));
    return this;
  }

  /**
   * Adds a statement at a participant beside a PostgreSQL database. The statements of a participant
   * run in their order, in one transaction of the database.
   *
   * @param {string} participant
   * @param {string} sql such as `"UPDATE acct SET balance = balance - $1 WHERE id = $2"`
   * @param {Param[]} [params] those of `$1`, `$2`, …
   * @param {{expect?: Expect}} [options] what the number of changed rows must be; of a statement
   *   that returns rows, the first column of the first one
   * @returns {this}
   * @throws {TypeError} if a value is none that PostgreSQL could take, or the transaction was sent
   */
  sql(participant, sql, params = [], options = {}) {
    const where = `${participant}`;
    const { expect } = known(options, ["expect"], `${where}: the statement's options`);
    if (typeof sql !== "string" || sql.trim() === "") {
      throw new TypeError(`${where}: a statement is a text, such as "SELECT 1"`);
    }
    this.#branch(participant).ops.push({
      sql,
      params: writeParams(params, where),
      ...(expect !== undefined && { expect: writeExpect(expect, where) }),
    });
    return this;
  }

  /**
   * Adds what the hook of a participant decides about, beside the ops there or instead of them.
   * What it replies stands behind the replies of the ops, as `{hook: JSON}`.
   *
   * @param {string} participant
   * @param {any} input any JSON; a `bigint` is written as a number
   * @returns {this}
   */
  input(participant, input) {
    checkJson(input, `${participant}, input`);
    const branch = this.#branch(participant);
    if ("input" in branch) throw new TypeError(`${participant} has an input already`);
    branch.input = input;
    return this;
  }

  /** @param {string} participant */
  #branch(participant) {
    if (typeof participant !== "string") throw new TypeError("a participant is named by a string");
    if (this.#body !== null) throw new TypeError("it was sent: a new attempt is a new Transaction");
    /** @type {{ops: object[], input?: any}} */
    const branch = this.#branches.get(participant) ?? { ops: [] };
    this.#branches.set(participant, branch);
    return branch;
  }

  /**
   * The body of the request. From now on it is always the same.
   *
   * @returns {string}
   */
  seal() {
    if (this.#branches.size === 0) throw new TypeError("the transaction has no ops and no input");
    this.#body ??= writeJson({
      ...(this.id !== null && { id: this.id }),
      ...this.#fields,
      branches: Array.from(this.#branches, ([participant, branch]) => ({ participant, ...branch })),
    });
    return this.#body;
  }
}

/**
 * @param {unknown} cmd
 * @param {object} options
 * @param {string} where
 */
export function writeOp(cmd, options, where) {
  const { expect, escrow } = known(options, ["expect", "escrow"], `${where}: the op's options`);
  if (escrow !== undefined && typeof escrow !== "boolean") {
    throw new TypeError(`${where}: escrow is true or false`);
  }
  return {
    cmd: writeCommand(cmd, where),
    ...(expect !== undefined && { expect: writeExpect(expect, where) }),
    ...(escrow !== undefined && { escrow }),
  };
}

/**
 * @param {unknown} ms
 * @param {string} where
 */
export function checkMs(ms, where) {
  if (!Number.isSafeInteger(ms) || /** @type {number} */ (ms) < 0) {
    throw new TypeError(`${where} is a whole number of milliseconds`);
  }
}

/**
 * @param {unknown} url
 * @returns {string} without a slash at its end
 */
export function checkCoordinator(url) {
  const wrong = "a coordinator is a URL, such as http://127.0.0.1:7700, with a path at most";
  let parsed;
  try {
    parsed = new URL(/** @type {string} */ (url));
  } catch {
    throw new TypeError(wrong);
  }
  const { protocol, username, password, search, hash, origin, pathname } = parsed;
  const isHttp = protocol === "http:" || protocol === "https:";
  // A name and a password in it would be shown where the URL is.
  if (!isHttp || username || password || search || hash) throw new TypeError(wrong);
  return `${origin}${pathname.replace(/\/+$/, "")}`;
}

/** @param {unknown} options */
export function checkWait(options) {
  const { signal, ...rest } = checkObject(options, "the wait's options");
  const { waitMs } = known(rest, ["waitMs"], "the wait's options");
  if (waitMs !== undefined) checkMs(waitMs, "waitMs");
  return { waitMs, signal: checkSignal(signal) };
}
