/**
 * Parses JSON. An integer beyond 2^53 becomes a `bigint`, every other number a `number`.
 *
 * @param {string} text
 * @returns {any}
 * @throws {SyntaxError} if the text is no JSON
 */
export function parseJson(text: string): any;
/**
 * Writes JSON, a `bigint` as the number that it is.
 *
 * @param {unknown} value
 * @returns {string}
 */
export function writeJson(value: unknown): string;
/**
 * Whether a value goes through JSON and comes back the same in kind: nothing that JSON drops, or
 * turns into `null`.
 *
 * @param {any} value
 * @param {string} where for the error: which value this is
 */
export function checkJson(value: any, where: string): void;
