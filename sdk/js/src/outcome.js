// What came of a transaction: committed, aborted, or unknown. Never two of these in one.

import { readReplies, readReply } from "./values.js";

/**
 * @typedef {import("./values.js").Reply} Reply
 * @typedef {import("./values.js").Integers} Integers
 * @typedef {import("./transport.js").Heard} Heard
 * @typedef {{id: string, txid: string, key: string}} Holder who has the lock, and on which key
 *
 * @typedef {object} Branch a branch, as its coordinator knows it
 * @property {string} participant
 * @property {string} state `preparing`, `prepared`, `committing`, `applied`, `aborting`, `aborted`
 *   …
 * @property {Reply[]} [replies] of its ops, in their order, and then its hook's; where it is
 *   committed
 * @property {string} [last_error] the last thing that went wrong
 *
 * @typedef {object} View a transaction, as the API shows it
 * @property {string} id
 * @property {string} [name]
 * @property {"committed" | "aborted" | "pending"} outcome
 * @property {string} state
 * @property {boolean} [applied] whether every branch has applied
 * @property {Branch[]} branches
 * @property {Problem} [error] why it was aborted
 * @property {string} [created_at] RFC 3339
 * @property {string} [decided_at] RFC 3339
 * @property {number} [attempt]
 *
 * @typedef {object} Problem an error document of the API
 * @property {string} code
 * @property {string} title
 * @property {number} status
 * @property {string} detail
 * @property {boolean} retryable
 * @property {string} [id]
 * @property {"aborted" | "committed" | "pending"} [outcome]
 * @property {string} [participant]
 * @property {number} [op]
 * @property {any} [reply]
 * @property {Holder} [holder]
 *
 * @typedef {object} About which transaction an error is about
 * @property {string | null} [id]
 * @property {string | null} [key]
 * @property {string | null} [coordinator]
 * @property {import("./transaction.js").Transaction | null} [transaction]
 */

/** Every branch applies. */
export class Committed {
  /**
   * @param {View} view
   * @param {string} coordinator
   */
  constructor(view, coordinator) {
    /** The transaction's id. */
    this.id = view.id;
    /** Whether every branch has applied; with `ack: "decided"`, some may do so in a moment. */
    this.applied = view.applied === true;
    /** The branches, in the order of the request. */
    this.branches = view.branches;
    /**
     * The replies by participant: of the ops in their order, and then the hook's.
     *
     * @type {Record<string, Reply[]>}
     */
    this.replies = Object.create(null);
    for (const { participant, replies } of view.branches) this.replies[participant] = replies ?? [];
    /** The coordinator that took it. */
    this.coordinator = coordinator;
  }

  /**
   * What the hook of a participant replied, any JSON; undefined if it said nothing.
   *
   * @param {string} participant
   * @returns {any}
   */
  hookReply(participant) {
    const replies = this.replies[participant] ?? [];
    const last = /** @type {any} */ (replies[replies.length - 1]);
    return last?.hook;
  }
}

/** What all errors of this package have in common. */
export class AssentError extends Error {
  // Behind getters, so that they are not in every line of a log that shows the error.
  #problem;
  #transaction;

  /**
   * @param {string} message
   * @param {About & {problem?: Problem, code?: string, cause?: unknown, retryable?: boolean}} about
   */
  constructor(message, about) {
    super(message, about.cause === undefined ? undefined : { cause: about.cause });
    this.name = new.target.name;
    const { problem } = about;
    this.#problem = problem ?? null;
    this.#transaction = about.transaction ?? null;
    /**
     * The transaction's id, if it is known.
     *
     * @type {string | null}
     */
    this.id = about.id ?? problem?.id ?? null;
    /**
     * The idempotency key that was given for it.
     *
     * @type {string | null}
     */
    this.key = about.key ?? null;
    /**
     * The coordinator that it was sent to.
     *
     * @type {string | null}
     */
    this.coordinator = about.coordinator ?? null;
    /**
     * The error code; `not_sent` where there was no connection.
     *
     * @type {string | null}
     */
    this.code = problem?.code ?? about.code ?? null;
    /**
     * Whether the same work may succeed if it is done again: after `Aborted` as a new transaction,
     * after `Rejected` the same one too. Never of `Unknown`.
     *
     * @type {boolean}
     */
    this.retryable = problem?.retryable ?? about.retryable ?? false;
    /**
     * What happened, without the code.
     *
     * @type {string}
     */
    this.detail = problem?.detail ?? message;
    /**
     * The participant of the branch to blame.
     *
     * @type {string | null}
     */
    this.participant = problem?.participant ?? null;
    /**
     * The op of that branch to blame, from 0.
     *
     * @type {number | null}
     */
    this.op = problem?.op ?? null;
    /**
     * The reply that a false expectation met.
     *
     * @type {Reply}
     */
    this.reply = problem?.reply ?? null;
    /**
     * Who holds the lock, in a conflict.
     *
     * @type {Holder | null}
     */
    this.holder = problem?.holder ?? null;
    /**
     * The code and the reason of a hook's veto.
     *
     * @type {{code: string, reason: string} | null}
     */
    this.veto = this.code === "vetoed" ? /** @type {any} */ (problem?.reply) : null;
  }

  /** The coordinator's error document, whole; null where there is none. */
  get problem() {
    return this.#problem;
  }

  /** What was submitted; after `Unknown`, submit it again. Null where nothing was. */
  get transaction() {
    return this.#transaction;
  }
}

/** No branch applies, now or later. If it is `retryable`, a new attempt, under a new id, may help. */
export class Aborted extends AssentError {}

/**
 * This copy of the request has begun nothing. If you sent the same earlier, that one may have
 * committed: `attach` its id.
 */
export class Rejected extends AssentError {}

/**
 * It may have committed, or may yet. Submit the same transaction again, or `attach` its id; never
 * run it anew under another id. So it is never `retryable`.
 */
export class Unknown extends AssentError {
  /** @param {ConstructorParameters<typeof AssentError>[1] & {isPending?: boolean}} about
   *  @param {string} message */
  constructor(message, about) {
    super(message, about);
    this.retryable = false;
    /**
     * Whether the coordinator itself says that there is no outcome yet.
     *
     * @type {boolean}
     */
    this.pending = about.isPending ?? false;
  }
}

/**
 * What came of a request to commit something.
 *
 * @param {Heard} heard
 * @param {About & {coordinator: string}} about
 * @param {Integers} integers
 * @returns {Committed}
 * @throws {Aborted | Rejected | Unknown}
 */
export function judge(heard, about, integers) {
  if (heard.kind !== "said") throw errorOf(heard, about);
  const view = readView(heard.body, integers);
  if (view === null || (about.id && view.id !== about.id)) throw errorOf(heard, about);
  return judgeView(view, about);
}

/**
 * What an answer says that is no success.
 *
 * @param {Heard} heard
 * @param {About} about
 * @returns {AssentError}
 */
export function errorOf(heard, about) {
  if (heard.kind === "unknown") {
    const { why, isSent, cause } = heard;
    if (isSent) return new Unknown(why, { ...about, cause });
    return new Rejected(`not sent: ${why}`, { ...about, cause, code: "not_sent", retryable: true });
  }
  if (heard.kind === "said") {
    return new Unknown("the answer's body is not what was asked for", about);
  }
  const { problem } = heard;
  const isNamed = !about.id || problem.id === about.id;
  // A proxy that has mixed up two answers: none of it is of this transaction.
  if (!isNamed && "id" in problem) {
    return new Unknown("the answer is about another transaction", about);
  }
  const message = `${problem.code}: ${problem.detail}`;
  // An outcome names its transaction.
  if (problem.outcome === "aborted" && isNamed) return new Aborted(message, { ...about, problem });
  // A fault inside says nothing of what was begun before it.
  if (problem.outcome === undefined && problem.code !== "internal") {
    return new Rejected(message, { ...about, problem });
  }
  return new Unknown(message, { ...about, problem });
}

/**
 * The same error as one that knows nothing of the outcome: of a question, or where an earlier copy
 * of the request may have been taken.
 *
 * @param {AssentError} error
 * @returns {Unknown}
 */
export function asUnknown(error) {
  return new Unknown(error.message, aboutOf(error));
}

/**
 * The same error of a transaction that nobody has committed.
 *
 * @param {Unknown} error
 * @returns {Rejected}
 */
export function asRejected(error) {
  const about = { ...aboutOf(error), retryable: true, problem: undefined };
  return new Rejected(`nothing was done: ${error.message}`, about);
}

/**
 * That its own program has given it up.
 *
 * @param {About} about
 * @returns {Aborted}
 */
export function cancelled(about) {
  const why = "it was aborted by its own program";
  return new Aborted(`cancelled: ${why}`, { ...about, code: "cancelled" });
}

/** @param {AssentError} error */
function aboutOf({ id, key, coordinator, transaction, problem, code, retryable, cause }) {
  const more = { problem: problem ?? undefined, code: code ?? undefined, retryable, cause };
  return { id, key, coordinator, transaction, ...more };
}

/**
 * What a transaction, as the API shows it, has come to.
 *
 * @param {View} view
 * @param {About & {coordinator: string}} about
 * @returns {Committed}
 * @throws {Aborted | Unknown}
 */
export function judgeView(view, about) {
  const named = { ...about, id: view.id };
  switch (view.outcome) {
    case "committed":
      return new Committed(view, about.coordinator);
    case "aborted": {
      const code = view.error?.code ?? "cancelled";
      const detail = view.error?.detail ?? "the answer does not say why";
      throw new Aborted(`${code}: ${detail}`, { ...named, code, problem: view.error });
    }
    default: {
      const message = `${view.id} is ${view.state}: there is no outcome yet`;
      throw new Unknown(message, { ...named, isPending: true });
    }
  }
}

/**
 * A view as JSON has it, checked and with its replies as JavaScript values; nothing if it is none.
 *
 * @param {any} body
 * @param {Integers} integers
 * @returns {View | null}
 */
export function readView(body, integers) {
  const words = ["committed", "aborted", "pending"];
  if (typeof body?.id !== "string" || !words.includes(body.outcome)) return null;
  if (typeof body.state !== "string" || !Array.isArray(body.branches)) return null;
  const branches = [];
  for (const item of body.branches) {
    const { replies, ...branch } = Object(item);
    const read = replies === undefined ? undefined : readReplies(replies, integers);
    if (read === null || typeof branch.participant !== "string") return null;
    branches.push(read === undefined ? branch : { ...branch, replies: read });
  }
  const { error, ...view } = body;
  const why = error === undefined ? null : readProblem(error, integers);
  return why === null ? { ...view, branches } : { ...view, branches, error: why };
}

/**
 * @param {any} body
 * @param {Integers} integers
 * @returns {Problem | null}
 */
export function readProblem(body, integers) {
  const { code, detail, status, retryable } = body ?? {};
  if (typeof code !== "string" || typeof detail !== "string") return null;
  if (!Number.isInteger(status) || typeof retryable !== "boolean") return null;
  const reply = "reply" in body && { reply: readReply(body.reply, integers) };
  return { ...body, ...reply };
}
