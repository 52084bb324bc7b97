/**
 * @param {unknown} value
 * @param {string} where for the error: which value this is
 * @returns {string | number | {base64: string}} its JSON
 */
export function writeArg(value: unknown, where: string): string | number | {
    base64: string;
};
/**
 * @param {unknown} command
 * @param {string} where
 */
export function writeCommand(command: unknown, where: string): (string | number | {
    base64: string;
})[];
/**
 * @param {unknown} params
 * @param {string} where
 */
export function writeParams(params: unknown, where: string): (string | number | boolean | object | null)[];
/**
 * @param {unknown} expect
 * @param {string} where
 */
export function writeExpect(expect: unknown, where: string): Record<string, unknown>;
/**
 * Refuses what is misspelt, and what is there and `undefined`: a guard, a key or a deadline must
 * not be lost because a variable was empty.
 *
 * @param {unknown} options
 * @param {readonly string[]} fields
 * @param {string} where
 * @returns {Record<string, any>}
 */
export function known(options: unknown, fields: readonly string[], where: string): Record<string, any>;
/**
 * @param {unknown} options
 * @param {string} where
 * @returns {Record<string, any>}
 */
export function checkObject(options: unknown, where: string): Record<string, any>;
/**
 * @param {any} signal
 * @returns {AbortSignal | undefined}
 */
export function checkSignal(signal: any): AbortSignal | undefined;
/**
 * @param {unknown} token as it was given, or as a file has it, with a line break at its end
 * @returns {string | undefined}
 */
export function checkToken(token: unknown): string | undefined;
/** @param {unknown} integers */
export function checkIntegers(integers: unknown): "string" | "number" | "bigint";
/**
 * @template {Function} F
 * @param {F} value
 * @param {string} where
 * @returns {F}
 */
export function checkFunction<F extends Function>(value: F, where: string): F;
/**
 * @param {any} reply as JSON has it
 * @param {Integers} integers
 * @returns {Reply}
 */
export function readReply(reply: any, integers: Integers): Reply;
/**
 * The replies of several ops; nothing if they are none.
 *
 * @param {unknown} replies as JSON has them
 * @param {Integers} integers
 * @returns {Reply[] | null}
 */
export function readReplies(replies: unknown, integers: Integers): Reply[] | null;
/**
 * An argument of a Redis command: text, a number, or bytes. A `number` beyond 2^53 is refused,
 * because it is rounded already: write a `bigint`.
 */
export type Arg = string | number | bigint | Uint8Array | ArrayBuffer;
/**
 * The reply of a Redis command: text, an integer (a `bigint` beyond 2^53), bytes that are not
 * UTF-8, nil, or an array of these; of an op in escrow `{at_least, at_most}`, of a hook `{hook:
 * JSON}`. That of a statement is the number of rows that it changed, or its `{rows}`.
 */
export type Reply = string | number | bigint | Uint8Array | null | any[] | Estimate | HookReply | Rows;
/**
 * The reply of a Redis command: text, an integer (a `bigint` beyond 2^53), bytes that are not
 * UTF-8, nil, or an array of these; of an op in escrow `{at_least, at_most}`, of a hook `{hook:
 * JSON}`. That of a statement is the number of rows that it changed, or its `{rows}`.
 */
export type Estimate = {
    at_least: number | bigint;
    at_most: number | bigint;
};
/**
 * The reply of a Redis command: text, an integer (a `bigint` beyond 2^53), bytes that are not
 * UTF-8, nil, or an array of these; of an op in escrow `{at_least, at_most}`, of a hook `{hook:
 * JSON}`. That of a statement is the number of rows that it changed, or its `{rows}`.
 */
export type HookReply = {
    hook: any;
};
/**
 * The reply of a Redis command: text, an integer (a `bigint` beyond 2^53), bytes that are not
 * UTF-8, nil, or an array of these; of an op in escrow `{at_least, at_most}`, of a hook `{hook:
 * JSON}`. That of a statement is the number of rows that it changed, or its `{rows}`.
 */
export type Rows = {
    rows: Record<string, any>[];
};
/**
 * A parameter of a statement, which PostgreSQL reads by the type that it finds for it. Bytes are
 * written as it writes them, a `Date` by ISO 8601, arrays and objects as JSON text.
 */
export type Param = Arg | boolean | null | Date | any[] | object;
/**
 * A condition on a reply. Every field that is present must hold; `null` is nil.
 */
export type Expect = {
    /**
     * the reply is this
     */
    eq?: Arg | null | undefined;
    /**
     * the reply is not this
     */
    ne?: Arg | null | undefined;
    /**
     * the reply is a number greater than this
     */
    gt?: Arg | undefined;
    /**
     * the reply is a number, this or greater
     */
    ge?: Arg | undefined;
    /**
     * the reply is a number less than this
     */
    lt?: Arg | undefined;
    /**
     * the reply is a number, this or less
     */
    le?: Arg | undefined;
    /**
     * the reply is there: not nil, not 0, not an empty array
     */
    exists?: boolean | undefined;
};
/**
 * Which type the integers of replies have: `"number"` (the default) is a `number` up to 2^53 and a
 * `bigint` beyond; `"bigint"` is always a `bigint`; `"string"` is always text.
 */
export type Integers = "number" | "bigint" | "string";
