// The client of a service's coordinators.

import { checkId, newId } from "./ids.js";
import { Interactive } from "./interactive.js";
import { writeJson } from "./json.js";
import { Aborted, AssentError, Rejected, Unknown } from "./outcome.js";
import { asRejected, asUnknown, errorOf, judge, judgeView, readView } from "./outcome.js";
import { Transaction, checkCoordinator, checkMs, checkWait } from "./transaction.js";
import { Transport, prefer } from "./transport.js";
import { checkFunction, checkIntegers, checkObject, checkSignal, checkToken } from "./values.js";
import { known } from "./values.js";

/**
 * @typedef {import("./outcome.js").Committed} Committed
 * @typedef {import("./outcome.js").View} View
 * @typedef {import("./transaction.js").TransactionOptions} TransactionOptions
 * @typedef {import("./transaction.js").WaitOptions} WaitOptions
 * @typedef {import("./interactive.js").BeginOptions} BeginOptions
 *
 * @typedef {object} ClientOptions
 * @property {string} [token] the bearer token, where the coordinator asks for one
 * @property {number} [requestTimeoutMs] how long an answer may take beyond what the coordinator
 *   waits on purpose; 5 s by default
 * @property {import("./values.js").Integers} [integers] the type of the integers in replies
 * @property {typeof globalThis.fetch} [fetch] instead of the global one
 *
 * @typedef {object} RunOptions
 * @property {number} [attemptsMax] how often the function is called at most; 5 by default
 */

const CLIENT_OPTIONS = ["token", "requestTimeoutMs", "integers", "fetch"];
const BEGIN_OPTIONS = ["id", "coordinator", "name", "timeoutMs", "ack"];
const REQUEST_TIMEOUT_DEFAULT_MS = 5_000;
const ATTEMPTS_DEFAULT_MAX = 5;
/** An attempt comes after a random time below this, twice as long for each attempt before. */
const PAUSE_FIRST_MS = 20;
const PAUSE_MS_MAX = 1_000;
/** The longest wait that a coordinator grants. */
const WAIT_MS_MAX = 60_000;
const ATTACH_WAIT_DEFAULT_MS = 5_000;

/** Runs transactions at a coordinator, or at the first of several that can be reached. */
export class Client {
  #transport;

  /**
   * @param {string | string[]} coordinators base URLs; the next one is tried only while a
   *   transaction was sent to none. They need not share a log
   * @param {ClientOptions} [options]
   */
  constructor(coordinators, options = {}) {
    const given = known(options, CLIENT_OPTIONS, "the client's options");
    const { token, integers = "number", fetch = globalThis.fetch } = given;
    const { requestTimeoutMs = REQUEST_TIMEOUT_DEFAULT_MS } = given;
    checkMs(requestTimeoutMs, "requestTimeoutMs");
    /**
     * The base URLs.
     *
     * @type {readonly string[]}
     */
    this.coordinators = Object.freeze([coordinators].flat().map(checkCoordinator));
    if (this.coordinators.length === 0) throw new TypeError("there is no coordinator");
    this.#transport = new Transport({
      token: checkToken(token),
      requestTimeoutMs,
      integers: checkIntegers(integers),
      fetch: checkFunction(fetch, "fetch"),
    });
  }

  /**
   * Runs a transaction of one request: `write` adds its ops, and then it is sent. If `write`
   * throws, nothing is sent.
   *
   * @param {(tx: Transaction) => unknown} write
   * @param {TransactionOptions & WaitOptions} [options]
   * @returns {Promise<Committed>}
   * @throws {Aborted | Rejected | Unknown}
   */
  async transaction(write, options = {}) {
    checkFunction(write, "write");
    const { waitMs, signal, ...fields } = checkObject(options, "the transaction's options");
    const wait = { ...("waitMs" in options && { waitMs }), signal };
    checkWait(wait);
    const transaction = new Transaction(fields);
    await write(transaction);
    return this.submit(transaction, wait);
  }

  /**
   * Sends a transaction; the same one again after `Unknown`, as often as you like.
   *
   * @param {Transaction} transaction
   * @param {WaitOptions} [options]
   * @returns {Promise<Committed>}
   * @throws {Aborted | Rejected | Unknown}
   */
  async submit(transaction, options = {}) {
    const { waitMs, signal } = checkWait(options);
    if (!(transaction instanceof Transaction)) throw new TypeError("a Transaction is submitted");
    const request = {
      method: /** @type {const} */ ("POST"),
      path: "/v1/transactions",
      body: transaction.seal(),
      headers: {
        ...(transaction.key !== null && { "idempotency-key": transaction.key }),
        ...prefer(waitMs),
      },
      waitMs: waitMs ?? transaction.timeoutMs,
      signal,
    };
    const about = { id: transaction.id, key: transaction.key, transaction };
    transaction.underWay += 1;
    try {
      const { heard, coordinator } = await this.#send(request, transaction);
      const committed = judge(heard, { ...about, coordinator }, this.#transport.integers);
      transaction.id = committed.id;
      transaction.mayBeTaken = true;
      return committed;
    } catch (error) {
      if (error instanceof Aborted || error instanceof Unknown) transaction.mayBeTaken = true;
      // What is said of this copy tells nothing of another one.
      const isUnclear = transaction.mayBeTaken || transaction.underWay > 1;
      throw error instanceof Rejected && isUnclear ? asUnknown(error) : error;
    } finally {
      transaction.underWay -= 1;
    }
  }

  /**
   * Sends it to the first that can be reached, to which it belongs from then on.
   *
   * @param {import("./transport.js").Request} request
   * @param {{coordinator: string | null, isKept: boolean}} of
   */
  async #send(request, of) {
    const candidates = this.#candidates(of);
    for (let next = 0; ; next += 1) {
      request.signal?.throwIfAborted();
      const coordinator = candidates[next];
      const before = of.coordinator;
      // Before it is sent: the same may be sent a second time meanwhile, and must not go elsewhere.
      of.coordinator = coordinator;
      const heard = await this.#transport.exchange(coordinator, request);
      const isSent = heard.kind !== "unknown" || heard.isSent;
      if (!isSent) of.coordinator = before;
      if (isSent || next === candidates.length - 1) return { heard, coordinator };
    }
  }

  /**
   * Which coordinators may be told of it: once one may have heard of it, only that one.
   *
   * @param {{coordinator: string | null, isKept: boolean}} transaction
   */
  #candidates({ coordinator, isKept }) {
    if (coordinator !== null) {
      if (this.coordinators.includes(coordinator)) return [coordinator];
      throw new TypeError(`it belongs to ${coordinator}, which is no coordinator of this client`);
    }
    if (isKept && this.coordinators.length > 1) {
      throw new TypeError("a kept id or key needs its `coordinator`: the others do not know it");
    }
    return this.coordinators;
  }

  /**
   * Asks what became of a transaction, by its id.
   *
   * @param {string} id
   * @param {WaitOptions & {coordinator?: string}} [options] `waitMs` is 5 s by default; without
   *   `coordinator`, all are asked
   * @returns {Promise<Committed>}
   * @throws {Aborted | Unknown} unknown too, if nobody knows the id
   */
  async attach(id, options = {}) {
    const { coordinator, ...wait } = checkObject(options, "the options");
    const { waitMs = ATTACH_WAIT_DEFAULT_MS, signal } = checkWait(wait);
    const { view, coordinator: by } = await this.#find(id, { waitMs, signal, coordinator });
    return judgeView(view, { coordinator: by });
  }

  /**
   * The whole story of a transaction, whatever its outcome.
   *
   * @param {string} id
   * @param {WaitOptions & {coordinator?: string}} [options] without `waitMs`, as it is now
   * @returns {Promise<View>}
   * @throws {Unknown} if nobody knows the id
   */
  async describe(id, options = {}) {
    const { coordinator, ...wait } = checkObject(options, "the options");
    const { waitMs = 0, signal } = checkWait(wait);
    return (await this.#find(id, { waitMs, signal, coordinator })).view;
  }

  /**
   * @param {string} id
   * @param {{waitMs: number, signal?: AbortSignal, coordinator?: string}} options
   */
  async #find(id, { waitMs, signal, coordinator }) {
    const own = checkId(id);
    const path = `/v1/transactions/${own}?wait=${Math.min(waitMs, WAIT_MS_MAX)}ms`;
    const asked = coordinator === undefined ? this.coordinators : [checkCoordinator(coordinator)];
    /** @type {Unknown | undefined} */
    let unknown;
    for (const at of asked) {
      const request = { method: /** @type {const} */ ("GET"), path, waitMs, signal };
      const heard = await this.#transport.exchange(at, request);
      const view = heard.kind === "said" ? readView(heard.body, this.#transport.integers) : null;
      if (view?.id === own) return { view, coordinator: at };
      const error = asUnknown(errorOf(heard, { id: own, coordinator: at }));
      // Who could not be asked may know it.
      if (unknown === undefined || unknown.code === "not_found") unknown = error;
    }
    throw unknown;
  }

  /**
   * Begins an interactive transaction: it reads, you decide, it writes, and it commits at the end.
   *
   * @param {BeginOptions} [options]
   * @returns {Promise<Interactive>}
   * @throws {Rejected | Unknown} in both cases nothing was done; begin again with the same id
   */
  async begin(options = {}) {
    const { signal, ...fields } = checkObject(options, "begin's options");
    const { id, coordinator, name, timeoutMs, ack } = known(fields, BEGIN_OPTIONS, "begin");
    checkSignal(signal);
    const own = id === undefined ? newId() : checkId(id);
    if (timeoutMs !== undefined) checkMs(timeoutMs, "timeoutMs");
    const timeout = timeoutMs === undefined ? undefined : `${timeoutMs}ms`;
    const request = {
      method: /** @type {const} */ ("POST"),
      path: "/v1/transactions",
      body: writeJson({ id: own, name, timeout, ack }),
      signal,
    };
    const at = coordinator === undefined ? null : checkCoordinator(coordinator);
    const of = { coordinator: at, isKept: id !== undefined };
    const { heard, coordinator: by } = await this.#send(request, of);
    const about = { id: own, coordinator: by };
    const body = heard.kind === "said" ? heard.body : null;
    if (body?.id !== own || body.outcome !== "active") throw errorOf(heard, about);
    return new Interactive(this.#transport, { ...about, seq: body.seq, timeoutMs });
  }

  /**
   * An interactive transaction that was begun elsewhere, and whose id a service was handed.
   *
   * @param {string} id
   * @param {number} seq the number of the last call that was done
   * @param {{coordinator?: string}} [options] needed where the client has several
   * @returns {Interactive}
   */
  interactive(id, seq, options = {}) {
    const { coordinator } = known(options, ["coordinator"], "the options");
    const at = coordinator === undefined ? null : checkCoordinator(coordinator);
    const [only] = this.#candidates({ coordinator: at, isKept: true });
    if (!Number.isSafeInteger(seq) || seq < 0) throw new TypeError("seq is the number of a call");
    return new Interactive(this.#transport, { id: checkId(id), seq, coordinator: only });
  }

  /**
   * Runs a function in an interactive transaction, and commits it. If the function throws, it is
   * aborted. If something that it read has changed, or a lock was held for too long, nothing was
   * done, and the function is called again in a new transaction. It returns only if the transaction
   * is committed, or empty; if the function has aborted it, that is `Aborted` with the code
   * `cancelled`.
   *
   * @template T
   * @param {(tx: Interactive) => Promise<T> | T} work
   * @param {BeginOptions & RunOptions} [options]
   * @returns {Promise<T>} what the function returned
   * @throws {Aborted | Rejected | Unknown} or what the function threw
   */
  async run(work, options = {}) {
    checkFunction(work, "work");
    const given = checkObject(options, "run's options");
    const { attemptsMax = ATTEMPTS_DEFAULT_MAX, ...begin } = given;
    if ("id" in begin) throw new TypeError("each attempt has an id of its own");
    if (!(attemptsMax >= 1)) throw new TypeError("attemptsMax is 1 or more");
    for (let attempt = 1; ; attempt += 1) {
      const tx = await this.begin(begin).catch((error) => {
        throw error instanceof Unknown ? asRejected(error) : error;
      });
      try {
        const result = await work(tx);
        if (await isUntouched(tx)) {
          await tx.close();
          return result;
        }
        if (tx.outcome === null) await tx.commit();
        // The function has aborted it, or has caught what ended it.
        if (tx.outcome instanceof AssentError) throw tx.outcome;
        return result;
      } catch (error) {
        await tx.close();
        // It may be about another transaction.
        if (!(error instanceof AssentError) || error.id !== tx.id) throw error;
        // The answer to a call was lost, and then it was given up: nothing is done, for certain.
        if (error instanceof Unknown && tx.outcome instanceof Aborted) throw asRejected(error);
        const mayHelp = error instanceof Aborted && error.retryable;
        if (!mayHelp || attempt >= attemptsMax) throw error;
      }
      const pauseMs = Math.min(PAUSE_FIRST_MS * 2 ** attempt, PAUSE_MS_MAX);
      await new Promise((wake) => setTimeout(wake, Math.random() * pauseMs));
    }
  }
}

/**
 * Whether nobody has asked it for an op: another service may have, to which its id was handed. The
 * number of the first call is free then.
 *
 * @param {Interactive} tx
 */
async function isUntouched(tx) {
  return tx.isEmpty && tx.keepAlive().then(() => true, () => false);
}
