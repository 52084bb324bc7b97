/**
 * A new id, to keep before anything is sent.
 *
 * @returns {string}
 */
export function newId(): string;
/**
 * @param {unknown} id
 * @returns {string} the id, in lower case
 */
export function checkId(id: unknown): string;
