/** Runs transactions at a coordinator, or at the first of several that can be reached. */
export class Client {
    /**
     * @param {string | string[]} coordinators base URLs; the next one is tried only while a
     *   transaction was sent to none. They need not share a log
     * @param {ClientOptions} [options]
     */
    constructor(coordinators: string | string[], options?: ClientOptions | undefined);
    /**
     * The base URLs.
     *
     * @type {readonly string[]}
     */
    coordinators: readonly string[];
    /**
     * Runs a transaction of one request: `write` adds its ops, and then it is sent. If `write`
     * throws, nothing is sent.
     *
     * @param {(tx: Transaction) => unknown} write
     * @param {TransactionOptions & WaitOptions} [options]
     * @returns {Promise<Committed>}
     * @throws {Aborted | Rejected | Unknown}
     */
    transaction(write: (tx: Transaction) => unknown, options?: (import("./transaction.js").TransactionOptions & import("./transaction.js").WaitOptions) | undefined): Promise<Committed>;
    /**
     * Sends a transaction; the same one again after `Unknown`, as often as you like.
     *
     * @param {Transaction} transaction
     * @param {WaitOptions} [options]
     * @returns {Promise<Committed>}
     * @throws {Aborted | Rejected | Unknown}
     */
    submit(transaction: Transaction, options?: import("./transaction.js").WaitOptions | undefined): Promise<Committed>;
    /**
     * Asks what became of a transaction, by its id.
     *
     * @param {string} id
     * @param {WaitOptions & {coordinator?: string}} [options] `waitMs` is 5 s by default; without
     *   `coordinator`, all are asked
     * @returns {Promise<Committed>}
     * @throws {Aborted | Unknown} unknown too, if nobody knows the id
     */
    attach(id: string, options?: (import("./transaction.js").WaitOptions & {
        coordinator?: string | undefined;
    }) | undefined): Promise<Committed>;
    /**
     * The whole story of a transaction, whatever its outcome.
     *
     * @param {string} id
     * @param {WaitOptions & {coordinator?: string}} [options] without `waitMs`, as it is now
     * @returns {Promise<View>}
     * @throws {Unknown} if nobody knows the id
     */
    describe(id: string, options?: (import("./transaction.js").WaitOptions & {
        coordinator?: string | undefined;
    }) | undefined): Promise<View>;
    /**
     * Begins an interactive transaction: it reads, you decide, it writes, and it commits at the end.
     *
     * @param {BeginOptions} [options]
     * @returns {Promise<Interactive>}
     * @throws {Rejected | Unknown} in both cases nothing was done; begin again with the same id
     */
    begin(options?: import("./interactive.js").BeginOptions | undefined): Promise<Interactive>;
    /**
     * An interactive transaction that was begun elsewhere, and whose id a service was handed.
     *
     * @param {string} id
     * @param {number} seq the number of the last call that was done
     * @param {{coordinator?: string}} [options] needed where the client has several
     * @returns {Interactive}
     */
    interactive(id: string, seq: number, options?: {
        coordinator?: string | undefined;
    } | undefined): Interactive;
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
    run<T>(work: (tx: Interactive) => T | Promise<T>, options?: (import("./interactive.js").BeginOptions & RunOptions) | undefined): Promise<T>;
    #private;
}
export type Committed = import("./outcome.js").Committed;
export type View = import("./outcome.js").View;
export type TransactionOptions = import("./transaction.js").TransactionOptions;
export type WaitOptions = import("./transaction.js").WaitOptions;
export type BeginOptions = import("./interactive.js").BeginOptions;
export type ClientOptions = {
    /**
     * the bearer token, where the coordinator asks for one
     */
    token?: string | undefined;
    /**
     * how long an answer may take beyond what the coordinator
     * waits on purpose; 5 s by default
     */
    requestTimeoutMs?: number | undefined;
    /**
     * the type of the integers in replies
     */
    integers?: import("./values.js").Integers | undefined;
    /**
     * instead of the global one
     */
    fetch?: typeof fetch | undefined;
};
export type RunOptions = {
    /**
     * how often the function is called at most; 5 by default
     */
    attemptsMax?: number | undefined;
};
import { Transaction } from "./transaction.js";
import { Interactive } from "./interactive.js";
