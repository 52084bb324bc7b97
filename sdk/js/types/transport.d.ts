/**
 * `Prefer: wait` counts in seconds; a part of one is a whole one.
 *
 * @param {number | undefined} waitMs
 * @returns {Record<string, string>}
 */
export function prefer(waitMs: number | undefined): Record<string, string>;
/** The HTTP side of a client: whom it speaks to as whom, and how long. */
export class Transport {
    /**
     * @param {object} options
     * @param {string | undefined} options.token
     * @param {number} options.requestTimeoutMs
     * @param {import("./values.js").Integers} options.integers
     * @param {typeof globalThis.fetch} options.fetch
     */
    constructor({ token, requestTimeoutMs, integers, fetch }: {
        token: string | undefined;
        requestTimeoutMs: number;
        integers: import("./values.js").Integers;
        fetch: typeof globalThis.fetch;
    });
    requestTimeoutMs: number;
    integers: import("./values.js").Integers;
    fetch: typeof fetch;
    /** @type {Record<string, string>} */
    headers: Record<string, string>;
    /**
     * Says it once, and tells what came of it.
     *
     * @param {string} coordinator its base URL
     * @param {Request} request
     * @returns {Promise<Heard>}
     * @throws the signal's reason, if it was aborted before anything was sent
     */
    exchange(coordinator: string, request: Request): Promise<Heard>;
    #private;
}
/**
 * What came of an exchange: `said` and `problem` are Assent's own words, all else is `unknown`.
 * Only where `isSent` is false is it certain that nobody got this copy of the request.
 */
export type Said = {
    kind: "said";
    status: number;
    body: any;
};
/**
 * What came of an exchange: `said` and `problem` are Assent's own words, all else is `unknown`.
 * Only where `isSent` is false is it certain that nobody got this copy of the request.
 */
export type Refused = {
    kind: "problem";
    problem: import("./outcome.js").Problem;
};
/**
 * What came of an exchange: `said` and `problem` are Assent's own words, all else is `unknown`.
 * Only where `isSent` is false is it certain that nobody got this copy of the request.
 */
export type NotKnown = {
    kind: "unknown";
    why: string;
    isSent: boolean;
    cause?: unknown;
};
/**
 * What came of an exchange: `said` and `problem` are Assent's own words, all else is `unknown`.
 * Only where `isSent` is false is it certain that nobody got this copy of the request.
 */
export type Heard = Said | Refused | NotKnown;
/**
 * What came of an exchange: `said` and `problem` are Assent's own words, all else is `unknown`.
 * Only where `isSent` is false is it certain that nobody got this copy of the request.
 */
export type Request = {
    method: "GET" | "POST";
    path: string;
    /**
     * JSON
     */
    body?: string | undefined;
    headers?: Record<string, string> | undefined;
    /**
     * how long the server may wait on purpose
     */
    waitMs?: number | undefined;
    signal?: AbortSignal | undefined;
};
