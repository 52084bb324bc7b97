/**
 * @param {unknown} cmd
 * @param {object} options
 * @param {string} where
 */
export function writeOp(cmd: unknown, options: object, where: string): {
    escrow?: any;
    expect?: Record<string, unknown> | undefined;
    cmd: (string | number | {
        base64: string;
    })[];
};
/**
 * @param {unknown} ms
 * @param {string} where
 */
export function checkMs(ms: unknown, where: string): void;
/**
 * @param {unknown} url
 * @returns {string} without a slash at its end
 */
export function checkCoordinator(url: unknown): string;
/** @param {unknown} options */
export function checkWait(options: unknown): {
    waitMs: any;
    signal: AbortSignal | undefined;
};
/**
 * A transaction: ops at participants, under an id that is made here. The id is the idempotency key
 * too: submitted again, it is the same transaction, done once.
 */
export class Transaction {
    /** @param {TransactionOptions} [options] */
    constructor(options?: TransactionOptions | undefined);
    /**
     * The idempotency key that was given.
     *
     * @type {string | null}
     */
    key: string | null;
    /**
     * Its id. With a `key`, the coordinator makes it, and it is null before the answer.
     *
     * @type {string | null}
     */
    id: string | null;
    /**
     * The coordinator that it was sent to, and that alone knows it; null while it was sent to none.
     *
     * @type {string | null}
     */
    coordinator: string | null;
    /** Whether id or key may have been sent by somebody before. */
    isKept: boolean;
    /** Whether a coordinator has taken it, or may have. */
    mayBeTaken: boolean;
    /** How many copies of it are under way. */
    underWay: number;
    timeoutMs: any;
    /**
     * Adds a Redis command at a participant. The ops of a participant run in their order.
     *
     * @param {string} participant
     * @param {Arg[]} cmd such as `["DECRBY", "acct:alice", 30]`
     * @param {OpOptions} [options]
     * @returns {this}
     * @throws {TypeError} if a value is none that Redis could take, or the transaction was sent
     */
    op(participant: string, cmd: Arg[], options?: OpOptions | undefined): this;
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
    sql(participant: string, sql: string, params?: import("./values.js").Param[] | undefined, options?: {
        expect?: import("./values.js").Expect | undefined;
    } | undefined): this;
    /**
     * Adds what the hook of a participant decides about, beside the ops there or instead of them.
     * What it replies stands behind the replies of the ops, as `{hook: JSON}`.
     *
     * @param {string} participant
     * @param {any} input any JSON; a `bigint` is written as a number
     * @returns {this}
     */
    input(participant: string, input: any): this;
    /**
     * The body of the request. From now on it is always the same.
     *
     * @returns {string}
     */
    seal(): string;
    #private;
}
export type Arg = import("./values.js").Arg;
export type Expect = import("./values.js").Expect;
export type Param = import("./values.js").Param;
export type TransactionOptions = {
    /**
     * an id that was kept before, a UUIDv7; else it is made here
     */
    id?: string | undefined;
    /**
     * an idempotency key of your own, such as an order's number, instead of an
     * id; 1 to 255 printable ASCII characters
     */
    key?: string | undefined;
    /**
     * the one to send it to; needed with an `id` or a `key` that was
     * used before, where the client has several
     */
    coordinator?: string | undefined;
    /**
     * a label for people
     */
    name?: string | undefined;
    /**
     * how long the decision may take; 5 s by default
     */
    timeoutMs?: number | undefined;
    /**
     * when `committed` is answered
     */
    ack?: "applied" | "decided" | undefined;
};
export type OpOptions = {
    /**
     * what the reply must be; else everything is aborted
     */
    expect?: import("./values.js").Expect | undefined;
    /**
     * whether the counter is shared with others that do the same
     */
    escrow?: boolean | undefined;
};
export type WaitOptions = {
    /**
     * how long to wait for the outcome, at most 60 s; a part of a second is
     * a whole one
     */
    waitMs?: number | undefined;
    /**
     * ends the wait; what was sent goes on, so the outcome is unknown
     */
    signal?: AbortSignal | undefined;
};
