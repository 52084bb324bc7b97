/** An interactive transaction of this client. Its calls are done one after the other. */
export class Interactive {
    /**
     * @param {import("./transport.js").Transport} transport
     * @param {{id: string, seq: number, coordinator: string, timeoutMs?: number}} of
     */
    constructor(transport: import("./transport.js").Transport, { id, seq, coordinator, timeoutMs }: {
        id: string;
        seq: number;
        coordinator: string;
        timeoutMs?: number;
    });
    /**
     * Its id.
     *
     * @type {string}
     */
    id: string;
    /**
     * The number of the last call that was done.
     *
     * @type {number}
     */
    seq: number;
    /** The coordinator that has it. */
    get coordinator(): string;
    /** Whether neither commit nor abort was asked for. */
    get isActive(): boolean;
    /**
     * What it has come to: the `Committed` of its commit, or the error that tells of it; null while
     * nothing was told.
     *
     * @returns {Committed | Aborted | Unknown | null}
     */
    get outcome(): import("./outcome.js").Committed | Aborted | Unknown | null;
    /** Whether this object was asked for no op yet. */
    get isEmpty(): boolean;
    /**
     * One command, and its reply, which sees what was staged before.
     *
     * @param {string} participant
     * @param {Arg[]} cmd such as `["GET", "acct:alice"]`
     * @param {{expect?: Expect}} [options]
     * @returns {Promise<Reply>}
     * @throws as `ops`
     */
    op(participant: string, cmd: Arg[], options?: {
        expect?: import("./values.js").Expect | undefined;
    } | undefined): Promise<Reply>;
    /**
     * Several commands at any participants in one call, and their replies in the same order.
     *
     * @param {OpAt[]} ops
     * @returns {Promise<Reply[]>}
     * @throws {Rejected} nothing of this call was staged, and the transaction goes on
     * @throws {Aborted} the transaction has ended, such as by `read_changed`
     * @throws {Unknown} the answer was lost: ask for it by `again`, or abort
     */
    ops(ops: OpAt[]): Promise<Reply[]>;
    /**
     * The replies of the call whose answer was lost; null if there is none. The call is done once,
     * however often it is asked for.
     *
     * @returns {Promise<Reply[] | null>}
     * @throws as `ops`
     */
    again(): Promise<Reply[] | null>;
    /** Keeps it alive: it expires a minute after its last call. */
    keepAlive(): Promise<void>;
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
    commit(options?: import("./transaction.js").WaitOptions | undefined): Promise<Committed>;
    /**
     * Gives it up: nothing of it is done.
     *
     * @returns {Promise<void>}
     * @throws {Rejected} its commit has begun
     * @throws {Unknown} unless a commit was asked for, nothing of it will ever be done
     */
    abort(): Promise<void>;
    /** Gives it up, if no commit was asked for. What does not arrive expires by itself. */
    close(): Promise<void>;
    /** `await using tx = await client.begin()` gives it up at the end of the block. */
    [Symbol.asyncDispose](): Promise<void>;
    #private;
}
export type Arg = import("./values.js").Arg;
export type Expect = import("./values.js").Expect;
export type Reply = import("./values.js").Reply;
export type Committed = import("./outcome.js").Committed;
/**
 * a Redis command at a
 * participant
 */
export type OpAt = {
    participant: string;
    cmd: Arg[];
    expect?: Expect;
};
export type BeginOptions = {
    /**
     * an id that was kept before; else it is made here
     */
    id?: string | undefined;
    /**
     * the one to begin it at; needed with an `id` that was used
     * before, where the client has several
     */
    coordinator?: string | undefined;
    /**
     * a label for people
     */
    name?: string | undefined;
    /**
     * how long the commit may take to be decided; 5 s by default
     */
    timeoutMs?: number | undefined;
    /**
     * when the commit is answered
     */
    ack?: "applied" | "decided" | undefined;
    /**
     * gives up the beginning of it
     */
    signal?: AbortSignal | undefined;
};
import { Aborted } from "./outcome.js";
import { Unknown } from "./outcome.js";
