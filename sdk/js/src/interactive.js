// An interactive transaction: it reads, the program decides, it writes, and it commits at the end.
// Nothing is locked before the commit.

import { writeJson } from "./json.js";
import { Aborted, Rejected, Unknown, asUnknown, cancelled, errorOf, judge } from "./outcome.js";
import { checkWait, writeOp } from "./transaction.js";
import { prefer } from "./transport.js";
import { readReplies } from "./values.js";

/**
 * @typedef {import("./values.js").Arg} Arg
 * @typedef {import("./values.js").Expect} Expect
 * @typedef {import("./values.js").Reply} Reply
 * @typedef {import("./outcome.js").Committed} Committed
 * @typedef {{participant: string, cmd: Arg[], expect?: Expect}} OpAt a Redis command at a
 *   participant
 *
 * @typedef {object} BeginOptions
 * @property {string} [id] an id that was kept before; else it is made here
 * @property {string} [coordinator] the one to begin it at; needed with an `id` that was used
 *   before, where the client has several
 * @property {string} [name] a label for people
 * @property {number} [timeoutMs] how long the commit may take to be decided; 5 s by default
 * @property {"applied" | "decided"} [ack] when the commit is answered
 * @property {AbortSignal} [signal] gives up the beginning of it
 */

/** The longest time that a decision may take. */
const TIMEOUT_MS_MAX = 60_000;

/** An interactive transaction of this client. Its calls are done one after the other. */
export class Interactive {
  #transport;
  #coordinator;
  #timeoutMs;
  /**
   * The call whose answer was lost.
   *
   * @type {{seq: number, body: string} | null}
   */
  #unclear = null;
  /**
   * What is under way.
   *
   * @type {Promise<unknown> | null}
   */
  #busy = null;
  /** @type {"active" | "committing" | "ended"} */
  #state = "active";
  /** @type {Committed | Aborted | Unknown | null} */
  #outcome = null;
  #isEmpty = true;

  /**
   * @param {import("./transport.js").Transport} transport
   * @param {{id: string, seq: number, coordinator: string, timeoutMs?: number}} of
   */
  constructor(transport, { id, seq, coordinator, timeoutMs = TIMEOUT_MS_MAX }) {
    this.#transport = transport;
    this.#coordinator = coordinator;
    this.#timeoutMs = timeoutMs;
    /**
     * Its id.
     *
     * @type {string}
     */
    this.id = id;
    /**
     * The number of the last call that was done.
     *
     * @type {number}
     */
    this.seq = seq;
  }

  /** The coordinator that has it. */
  get coordinator() {
    return this.#coordinator;
  }

  /** Whether neither commit nor abort was asked for. */
  get isActive() {
    return this.#state === "active";
  }

  /**
   * What it has come to: the `Committed` of its commit, or the error that tells of it; null while
   * nothing was told.
   *
   * @returns {Committed | Aborted | Unknown | null}
   */
  get outcome() {
    return this.#outcome;
  }

  /** Whether this object was asked for no op yet. */
  get isEmpty() {
    return this.#isEmpty;
  }

  /** @param {Committed | Aborted} outcome */
  #end(outcome) {
    this.#state = "ended";
    // An abort that is said again does not change why it was aborted.
    if (!(this.#outcome instanceof Aborted)) this.#outcome = outcome;
  }

  /**
   * One command, and its reply, which sees what was staged before.
   *
   * @param {string} participant
   * @param {Arg[]} cmd such as `["GET", "acct:alice"]`
   * @param {{expect?: Expect}} [options]
   * @returns {Promise<Reply>}
   * @throws as `ops`
   */
  async op(participant, cmd, options = {}) {
    return (await this.ops([{ ...options, participant, cmd }]))[0];
  }

  /**
   * Several commands at any participants in one call, and their replies in the same order.
   *
   * @param {OpAt[]} ops
   * @returns {Promise<Reply[]>}
   * @throws {Rejected} nothing of this call was staged, and the transaction goes on
   * @throws {Aborted} the transaction has ended, such as by `read_changed`
   * @throws {Unknown} the answer was lost: ask for it by `again`, or abort
   */
  async ops(ops) {
    const written = Array.from(ops, ({ participant, cmd, ...options }) => ({
      participant,
      ...writeOp(cmd, options, participant),
    }));
    if (written.length > 0) this.#isEmpty = false;
    return this.#inLine(() => {
      this.#refuseUnclear();
      const seq = this.seq + 1;
      return this.#call({ seq, body: writeJson({ seq, ops: written }) });
    });
  }

  /**
   * The replies of the call whose answer was lost; null if there is none. The call is done once,
   * however often it is asked for.
   *
   * @returns {Promise<Reply[] | null>}
   * @throws as `ops`
   */
  async again() {
    return this.#inLine(() => (this.#unclear === null ? null : this.#call(this.#unclear)));
  }

  /** Keeps it alive: it expires a minute after its last call. */
  async keepAlive() {
    await this.ops([]);
  }

  /** @param {{seq: number, body: string}} call */
  async #call(call) {
    const heard = await this.#exchange("ops", { body: call.body });
    const said = heard.kind === "said" ? heard.body : null;
    const isOurs = said?.id === this.id && said.seq === call.seq;
    const replies = isOurs ? readReplies(said.replies, this.#transport.integers) : null;
    if (replies === null) throw this.#refused(call, errorOf(heard, this.#about));
    this.#unclear = null;
    this.seq = call.seq;
    return replies;
  }

  /**
   * @param {{seq: number, body: string}} call
   * @param {import("./outcome.js").AssentError} error
   */
  #refused(call, error) {
    if (error instanceof Aborted) this.#end(error);
    // An earlier copy of the call may have been done, whatever is said of this one.
    const isUnclear = this.#unclear !== null && error instanceof Rejected;
    if (isUnclear) return asUnknown(error);
    this.#unclear = error instanceof Unknown ? call : null;
    return error;
  }

  /** Nobody knows what would be committed, while it is not known whether a call was done. */
  #refuseUnclear() {
    if (this.#unclear === null) return;
    const why = `the answer to call ${this.#unclear.seq} was lost: ask for it by again(), or abort`;
    throw new Rejected(why, { ...this.#about, code: "wrong_state" });
  }

  /**
   * Commits it. After `Unknown`, commit again, or `attach` its id.
   *
   * @param {import("./transaction.js").WaitOptions} [options]
   * @returns {Promise<Committed>}
   * @throws {Aborted} nothing was done: `read_changed`, if something that it read is not so any
   *   more
   * @throws {Rejected} the commit has not begun
   * @throws {Unknown}
   */
  async commit(options = {}) {
    const { waitMs, signal } = checkWait(options);
    return this.#inLine(async () => {
      signal?.throwIfAborted();
      const before = this.#state;
      if (before === "active") {
        this.#refuseUnclear();
        this.#state = "committing";
      }
      const request = { headers: prefer(waitMs), waitMs: waitMs ?? this.#timeoutMs, signal };
      try {
        const heard = await this.#exchange("commit", request);
        const committed = judge(heard, this.#about, this.#transport.integers);
        this.#end(committed);
        return committed;
      } catch (error) {
        if (error instanceof Aborted) this.#end(error);
        if (error instanceof Unknown) this.#outcome = error;
        if (!(error instanceof Rejected)) throw error;
        this.#state = before;
        // An earlier commit may have been taken.
        throw before === "active" ? error : asUnknown(error);
      }
    });
  }

  /**
   * Gives it up: nothing of it is done.
   *
   * @returns {Promise<void>}
   * @throws {Rejected} its commit has begun
   * @throws {Unknown} unless a commit was asked for, nothing of it will ever be done
   */
  async abort() {
    // Also past a call that has failed.
    await this.#busy?.catch(() => {});
    return this.#inLine(async () => {
      const heard = await this.#exchange("abort", {});
      const said = heard.kind === "said" ? heard.body : null;
      if (said?.id === this.id && said.outcome === "aborted") {
        this.#end(cancelled(this.#about));
        return;
      }
      const error = errorOf(heard, this.#about);
      if (!(error instanceof Aborted)) throw error;
      this.#end(error);
    });
  }

  /** Gives it up, if no commit was asked for. What does not arrive expires by itself. */
  async close() {
    await this.#busy?.catch(() => {});
    if (this.#state === "active") await this.abort().catch(() => {});
  }

  /** `await using tx = await client.begin()` gives it up at the end of the block. */
  async [Symbol.asyncDispose]() {
    await this.close();
  }

  /**
   * One call at a time. What was called before the call in front of it has failed fails with it: a
   * commit must not come through past an op that did not.
   *
   * @template T
   * @param {() => Promise<T> | T} work
   * @returns {Promise<T>}
   */
  async #inLine(work) {
    const turn = this.#busy === null ? Promise.resolve().then(work) : this.#busy.then(work);
    this.#busy = turn;
    try {
      return await turn;
    } finally {
      if (this.#busy === turn) this.#busy = null;
    }
  }

  get #about() {
    return { id: this.id, coordinator: this.#coordinator };
  }

  /**
   * @param {"ops" | "commit" | "abort"} what
   * @param {Partial<import("./transport.js").Request>} request
   */
  #exchange(what, request) {
    const path = `/v1/transactions/${this.id}/${what}`;
    return this.#transport.exchange(this.#coordinator, { method: "POST", path, ...request });
  }
}
