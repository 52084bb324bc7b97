// One HTTP exchange, and the one place that decides what it means. It never says a thing twice, and
// never follows a redirect: each of those lets somebody else answer.

import { subscribe } from "node:diagnostics_channel";

import { readProblem } from "./outcome.js";
import { parseJson } from "./json.js";

const JSON_TYPE = "application/json";
const PROBLEM_TYPE = "application/problem+json";
/** As the Rust client has it. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
/** A setTimeout of more milliseconds ends at once. */
const TIMER_MS_MAX = 0x7fffffff;

/**
 * What came of an exchange: `said` and `problem` are Assent's own words, all else is `unknown`.
 * Only where `isSent` is false is it certain that nobody got this copy of the request.
 *
 * @typedef {{kind: "said", status: number, body: any}} Said
 * @typedef {{kind: "problem", problem: import("./outcome.js").Problem}} Refused
 * @typedef {{kind: "unknown", why: string, isSent: boolean, cause?: unknown}} NotKnown
 * @typedef {Said | Refused | NotKnown} Heard
 *
 * @typedef {object} Request
 * @property {"GET" | "POST"} method
 * @property {string} path
 * @property {string} [body] JSON
 * @property {Record<string, string>} [headers]
 * @property {number} [waitMs] how long the server may wait on purpose
 * @property {AbortSignal} [signal]
 */

/**
 * The errors of connections that did not come about, TLS included: no request was sent on them. The
 * error itself does not say whether its handshake was over.
 *
 * @type {WeakSet<object>}
 */
const unconnected = new WeakSet();
subscribe("undici:client:connectError", ({ error }) => unconnected.add(error));

/** The HTTP side of a client: whom it speaks to as whom, and how long. */
export class Transport {
  /**
   * @param {object} options
   * @param {string | undefined} options.token
   * @param {number} options.requestTimeoutMs
   * @param {import("./values.js").Integers} options.integers
   * @param {typeof globalThis.fetch} options.fetch
   */
  constructor({ token, requestTimeoutMs, integers, fetch }) {
    this.requestTimeoutMs = requestTimeoutMs;
    this.integers = integers;
    this.fetch = fetch;
    /** @type {Record<string, string>} */
    this.headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  /**
   * Says it once, and tells what came of it.
   *
   * @param {string} coordinator its base URL
   * @param {Request} request
   * @returns {Promise<Heard>}
   * @throws the signal's reason, if it was aborted before anything was sent
   */
  async exchange(coordinator, request) {
    request.signal?.throwIfAborted();
    const limitMs = Math.min(this.requestTimeoutMs + (request.waitMs ?? 0), TIMER_MS_MAX);
    const end = new AbortController();
    const late = new Error(`no answer within ${limitMs} ms`);
    const timer = setTimeout(() => end.abort(late), limitMs);
    const giveUp = () => end.abort(request.signal?.reason);
    request.signal?.addEventListener("abort", giveUp, { once: true });
    // Node's fetch may ignore the signal for good, such as behind an answer that only says gzip.
    const isOver = new Promise((_, reject) => {
      end.signal.addEventListener("abort", () => reject(end.signal.reason), { once: true });
    });
    try {
      return await Promise.race([this.#ask(coordinator, request, end.signal), isOver]);
    } catch (error) {
      const heard = notKnown(end.signal.aborted ? end.signal.reason : error);
      end.abort();
      return heard;
    } finally {
      clearTimeout(timer);
      request.signal?.removeEventListener("abort", giveUp);
    }
  }

  /**
   * @param {string} coordinator
   * @param {Request} request
   * @param {AbortSignal} signal
   */
  async #ask(coordinator, request, signal) {
    const { fetch } = this;
    const response = await fetch(`${coordinator}${request.path}`, {
      method: request.method,
      headers: this.#headers(request),
      redirect: "manual",
      signal,
      ...once(request),
    });
    return this.#judge(response, await readBody(response));
  }

  /**
   * @param {Request} request
   * @returns {Record<string, string>}
   */
  #headers({ body, headers }) {
    const type = body !== undefined && { "content-type": JSON_TYPE };
    const accept = { accept: JSON_TYPE, "accept-encoding": "identity" };
    return { ...accept, ...type, ...this.headers, ...headers };
  }

  /**
   * Whatever is not recognisably Assent's own word is unknown: an ingress answers 404 and 502, a
   * captive portal answers 200.
   *
   * @param {Response} response
   * @param {string} text
   * @returns {Heard}
   */
  #judge(response, text) {
    const { status } = response;
    const type = (response.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
    if (status >= 200 && status <= 299 && type === JSON_TYPE) {
      return { kind: "said", status, body: parseJson(text) };
    }
    if (status >= 400 && type === PROBLEM_TYPE) {
      const problem = readProblem(parseJson(text), this.integers);
      if (problem?.status === status) return { kind: "problem", problem };
    }
    const what = type === "" ? "no content type" : "another content type or form";
    const why = `an answer of status ${status} that is not Assent's (${what})`;
    return { kind: "unknown", why, isSent: true };
  }
}

/**
 * The body as a stream: `fetch` sends a body that it can read twice again, without a word, after an
 * answer of status 421.
 *
 * @param {Request} request
 */
function once({ method, body }) {
  if (method === "GET") return {};
  const bytes = new TextEncoder().encode(body ?? "");
  const stream = new ReadableStream({
    start(controller) {
      if (bytes.length > 0) controller.enqueue(bytes);
      controller.close();
    },
  });
  return { body: stream, duplex: "half" };
}

/** @param {Response} response */
async function readBody(response) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let bytes = 0;
  let text = "";
  const reader = response.body?.getReader();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    bytes += part.value.length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error(`the answer has over ${ANSWER_BYTES_MAX} bytes`);
    text += decoder.decode(part.value, { stream: true });
  }
  return text + decoder.decode();
}

/**
 * @param {any} error
 * @returns {NotKnown}
 */
function notKnown(error) {
  const cause = error?.cause;
  // A parser's own words may quote the body.
  const why = error instanceof SyntaxError ? "the answer is no JSON" : inWords(error);
  const isSent = !unconnected.has(cause) && !wasNotSent(cause);
  return { kind: "unknown", why, isSent, cause: error };
}

/** @param {any} error */
function inWords(error) {
  const cause = error?.cause;
  const said = [error?.message ?? String(error), cause?.message || cause?.code];
  return said.filter((words) => words !== undefined).join(": ");
}

/**
 * Whether the connection was never there. What ends a connection that was there has another
 * `syscall`, and may come after the request has arrived.
 *
 * @param {any} cause
 * @returns {boolean}
 */
function wasNotSent(cause) {
  const { errors } = cause ?? {};
  if (Array.isArray(errors) && errors.length > 0) return errors.every(wasNotSent);
  const isOfConnect = cause?.syscall === "connect" || cause?.syscall === "getaddrinfo";
  return isOfConnect || cause?.code === "UND_ERR_CONNECT_TIMEOUT" || cause?.message === "bad port";
}

/**
 * `Prefer: wait` counts in seconds; a part of one is a whole one.
 *
 * @param {number | undefined} waitMs
 * @returns {Record<string, string>}
 */
export function prefer(waitMs) {
  return waitMs === undefined ? {} : { prefer: `wait=${Math.ceil(waitMs / 1_000)}` };
}
