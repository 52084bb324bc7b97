/**
 * Asks a hook once: the question of the agent in, the answer to it out. For servers that
 * `hookHandler` does not fit.
 *
 * @param {Hook} hook
 * @param {any} question the JSON that the agent has posted
 * @param {Integers} [integers]
 * @returns {Promise<object>} the JSON to answer
 * @throws what the hook throws, but for a `Veto`
 */
export function answerHook(hook: Hook, question: any, integers?: import("./values.js").Integers | undefined): Promise<object>;
/**
 * A handler that serves a hook by HTTP: with `(request, response)`, as `node:http` and Express call
 * it, or with a `Request`, for which it returns a `Response`.
 *
 * An error of the hook is answered 500: the agent asks again, a few times.
 *
 * @param {Hook} hook
 * @param {HookOptions} [options]
 * @returns {HookHandler}
 */
export function hookHandler(hook: Hook, options?: HookOptions | undefined): HookHandler;
/**
 * @typedef {import("./values.js").Arg} Arg
 * @typedef {import("./values.js").Reply} Reply
 * @typedef {import("./values.js").Integers} Integers
 * @typedef {import("./transaction.js").OpOptions} OpOptions
 *
 * @typedef {object} HookCall what the hook is asked about
 * @property {string} txid the branch's transaction; the same one again must get the same answer
 * @property {string} id the id that the client knows
 * @property {string} participant
 * @property {any} input what the client sent: any JSON
 *
 * @callback Hook
 * @param {HookCall} call
 * @param {HookStage} stage
 * @returns {unknown} any JSON, which the client gets as the hook's reply; undefined for none
 *
 * @typedef {object} HookOptions
 * @property {string} [token] the bearer token that the agent sends (`hook_token_file`)
 * @property {Integers} [integers] the type of the integers in replies of `read`
 * @property {(error: unknown) => void} [onError] is told when the hook throws anything but a
 *   `Veto`; by default it is printed
 */
/** Thrown by a hook, it is a vote of no: nothing of the transaction is done, at any participant. */
export class Veto extends Error {
    /**
     * @param {string} code 1 to 64 letters, digits, `_`, `-`, `.`; the client reads it
     * @param {string} reason for people
     */
    constructor(code: string, reason: string);
    code: string;
}
/** What a hook may do: read, and add ops to the branch. */
export class HookStage {
    /** @param {Reply[]} replies of the reads that were asked for before */
    constructor(replies: Reply[]);
    /**
     * Reads, with the client's ops in view. What was read is still so when the branch commits.
     * Several reads at once (`Promise.all`) are one question.
     *
     * @param {Arg[]} cmd such as `["GET", "limit"]`
     * @returns {Promise<any>} its reply
     * @throws {TypeError} at once, if it is no command
     */
    read(cmd: Arg[]): Promise<any>;
    /**
     * Adds a command to the branch, behind the client's ops.
     *
     * @param {Arg[]} cmd
     * @param {OpOptions} [options]
     */
    op(cmd: Arg[], options?: import("./transaction.js").OpOptions | undefined): void;
    /**
     * @param {unknown} reply
     * @returns {object} the answer to the agent
     */
    answer(reply: unknown): object;
    /** Whether the call ended because a reply is not there yet. */
    get isWaiting(): boolean;
    #private;
}
export type Asked = {
    method: string;
    authorization: string | null;
    body: () => Promise<any>;
};
export type Answered = {
    status: number;
    type: string;
    body: string;
};
/**
 * what is used of a request of `node:http` or Express
 */
export type NodeRequest = {
    method?: string | undefined;
    headers: Record<string, any>;
    /**
     * where a middleware has read it: parsed, or its bytes or text
     */
    body?: any;
};
/**
 * what is used of a response of `node:http` or Express
 */
export type NodeResponse = {
    writeHead: (status: number, headers: Record<string, string>) => unknown;
    end: (body: string) => unknown;
};
export type HookHandler = {
    (request: Request): Promise<Response>;
    (request: NodeRequest & AsyncIterable<any>, response: NodeResponse): Promise<void>;
};
export type Arg = import("./values.js").Arg;
export type Reply = import("./values.js").Reply;
export type Integers = import("./values.js").Integers;
export type OpOptions = import("./transaction.js").OpOptions;
/**
 * what the hook is asked about
 */
export type HookCall = {
    /**
     * the branch's transaction; the same one again must get the same answer
     */
    txid: string;
    /**
     * the id that the client knows
     */
    id: string;
    participant: string;
    /**
     * what the client sent: any JSON
     */
    input: any;
};
export type Hook = (call: HookCall, stage: HookStage) => unknown;
export type HookOptions = {
    /**
     * the bearer token that the agent sends (`hook_token_file`)
     */
    token?: string | undefined;
    /**
     * the type of the integers in replies of `read`
     */
    integers?: import("./values.js").Integers | undefined;
    /**
     * is told when the hook throws anything but a
     * `Veto`; by default it is printed
     */
    onError?: ((error: unknown) => void) | undefined;
};
