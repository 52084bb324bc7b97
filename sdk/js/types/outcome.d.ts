/**
 * What came of a request to commit something.
 *
 * @param {Heard} heard
 * @param {About & {coordinator: string}} about
 * @param {Integers} integers
 * @returns {Committed}
 * @throws {Aborted | Rejected | Unknown}
 */
export function judge(heard: Heard, about: About & {
    coordinator: string;
}, integers: Integers): Committed;
/**
 * What an answer says that is no success.
 *
 * @param {Heard} heard
 * @param {About} about
 * @returns {AssentError}
 */
export function errorOf(heard: Heard, about: About): AssentError;
/**
 * The same error as one that knows nothing of the outcome: of a question, or where an earlier copy
 * of the request may have been taken.
 *
 * @param {AssentError} error
 * @returns {Unknown}
 */
export function asUnknown(error: AssentError): Unknown;
/**
 * The same error of a transaction that nobody has committed.
 *
 * @param {Unknown} error
 * @returns {Rejected}
 */
export function asRejected(error: Unknown): Rejected;
/**
 * That its own program has given it up.
 *
 * @param {About} about
 * @returns {Aborted}
 */
export function cancelled(about: About): Aborted;
/**
 * What a transaction, as the API shows it, has come to.
 *
 * @param {View} view
 * @param {About & {coordinator: string}} about
 * @returns {Committed}
 * @throws {Aborted | Unknown}
 */
export function judgeView(view: View, about: About & {
    coordinator: string;
}): Committed;
/**
 * A view as JSON has it, checked and with its replies as JavaScript values; nothing if it is none.
 *
 * @param {any} body
 * @param {Integers} integers
 * @returns {View | null}
 */
export function readView(body: any, integers: Integers): View | null;
/**
 * @param {any} body
 * @param {Integers} integers
 * @returns {Problem | null}
 */
export function readProblem(body: any, integers: Integers): Problem | null;
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
    constructor(view: View, coordinator: string);
    /** The transaction's id. */
    id: string;
    /** Whether every branch has applied; with `ack: "decided"`, some may do so in a moment. */
    applied: boolean;
    /** The branches, in the order of the request. */
    branches: Branch[];
    /**
     * The replies by participant: of the ops in their order, and then the hook's.
     *
     * @type {Record<string, Reply[]>}
     */
    replies: Record<string, Reply[]>;
    /** The coordinator that took it. */
    coordinator: string;
    /**
     * What the hook of a participant replied, any JSON; undefined if it said nothing.
     *
     * @param {string} participant
     * @returns {any}
     */
    hookReply(participant: string): any;
}
/** What all errors of this package have in common. */
export class AssentError extends Error {
    /**
     * @param {string} message
     * @param {About & {problem?: Problem, code?: string, cause?: unknown, retryable?: boolean}} about
     */
    constructor(message: string, about: About & {
        problem?: Problem | undefined;
        code?: string | undefined;
        cause?: unknown;
        retryable?: boolean | undefined;
    });
    /**
     * The transaction's id, if it is known.
     *
     * @type {string | null}
     */
    id: string | null;
    /**
     * The idempotency key that was given for it.
     *
     * @type {string | null}
     */
    key: string | null;
    /**
     * The coordinator that it was sent to.
     *
     * @type {string | null}
     */
    coordinator: string | null;
    /**
     * The error code; `not_sent` where there was no connection.
     *
     * @type {string | null}
     */
    code: string | null;
    /**
     * Whether the same work may succeed if it is done again: after `Aborted` as a new transaction,
     * after `Rejected` the same one too. Never of `Unknown`.
     *
     * @type {boolean}
     */
    retryable: boolean;
    /**
     * What happened, without the code.
     *
     * @type {string}
     */
    detail: string;
    /**
     * The participant of the branch to blame.
     *
     * @type {string | null}
     */
    participant: string | null;
    /**
     * The op of that branch to blame, from 0.
     *
     * @type {number | null}
     */
    op: number | null;
    /**
     * The reply that a false expectation met.
     *
     * @type {Reply}
     */
    reply: Reply;
    /**
     * Who holds the lock, in a conflict.
     *
     * @type {Holder | null}
     */
    holder: Holder | null;
    /**
     * The code and the reason of a hook's veto.
     *
     * @type {{code: string, reason: string} | null}
     */
    veto: {
        code: string;
        reason: string;
    } | null;
    /** The coordinator's error document, whole; null where there is none. */
    get problem(): Problem | null;
    /** What was submitted; after `Unknown`, submit it again. Null where nothing was. */
    get transaction(): import("./transaction.js").Transaction | null;
    #private;
}
/** No branch applies, now or later. If it is `retryable`, a new attempt, under a new id, may help. */
export class Aborted extends AssentError {
}
/**
 * This copy of the request has begun nothing. If you sent the same earlier, that one may have
 * committed: `attach` its id.
 */
export class Rejected extends AssentError {
}
/**
 * It may have committed, or may yet. Submit the same transaction again, or `attach` its id; never
 * run it anew under another id. So it is never `retryable`.
 */
export class Unknown extends AssentError {
    /** @param {ConstructorParameters<typeof AssentError>[1] & {isPending?: boolean}} about
     *  @param {string} message */
    constructor(message: string, about: [message: string, about: About & {
        problem?: Problem | undefined;
        code?: string | undefined;
        cause?: unknown;
        retryable?: boolean | undefined;
    }][1] & {
        isPending?: boolean;
    });
    /**
     * Whether the coordinator itself says that there is no outcome yet.
     *
     * @type {boolean}
     */
    pending: boolean;
}
export type Reply = import("./values.js").Reply;
export type Integers = import("./values.js").Integers;
export type Heard = import("./transport.js").Heard;
/**
 * who has the lock, and on which key
 */
export type Holder = {
    id: string;
    txid: string;
    key: string;
};
/**
 * a branch, as its coordinator knows it
 */
export type Branch = {
    participant: string;
    /**
     * `preparing`, `prepared`, `committing`, `applied`, `aborting`, `aborted`
     * …
     */
    state: string;
    /**
     * of its ops, in their order, and then its hook's; where it is
     * committed
     */
    replies?: import("./values.js").Reply[] | undefined;
    /**
     * the last thing that went wrong
     */
    last_error?: string | undefined;
};
/**
 * a transaction, as the API shows it
 */
export type View = {
    id: string;
    name?: string | undefined;
    outcome: "committed" | "aborted" | "pending";
    state: string;
    /**
     * whether every branch has applied
     */
    applied?: boolean | undefined;
    branches: Branch[];
    /**
     * why it was aborted
     */
    error?: Problem | undefined;
    /**
     * RFC 3339
     */
    created_at?: string | undefined;
    /**
     * RFC 3339
     */
    decided_at?: string | undefined;
    attempt?: number | undefined;
};
/**
 * an error document of the API
 */
export type Problem = {
    code: string;
    title: string;
    status: number;
    detail: string;
    retryable: boolean;
    id?: string | undefined;
    outcome?: "pending" | "committed" | "aborted" | undefined;
    participant?: string | undefined;
    op?: number | undefined;
    reply?: any;
    holder?: Holder | undefined;
};
/**
 * which transaction an error is about
 */
export type About = {
    id?: string | null | undefined;
    key?: string | null | undefined;
    coordinator?: string | null | undefined;
    transaction?: import("./transaction.js").Transaction | null | undefined;
};
