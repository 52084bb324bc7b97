// The hook of a participant: a function of the service that votes on branches with an input.
//
// The agent remembers nothing of a hook. It asks, hears what the hook wants to read, and asks again
// with the replies of all reads so far. So the function is called anew each time, and a read that
// has no reply yet ends that call.

import { createHash, timingSafeEqual } from "node:crypto";

import { parseJson, writeJson } from "./json.js";
import { writeOp } from "./transaction.js";
import { checkFunction, checkIntegers, checkToken, known, readReply } from "./values.js";

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
  constructor(code, reason) {
    super(reason);
    this.name = "Veto";
    this.code = code;
  }
}

const HOOK_OPTIONS = ["token", "integers", "onError"];

class NotReadYet extends Error {}

/** What a hook may do: read, and add ops to the branch. */
export class HookStage {
  #replies;
  #read = 0;
  /** @type {object[]} */
  #wanted = [];
  /** @type {object[]} */
  #ops = [];

  /** @param {Reply[]} replies of the reads that were asked for before */
  constructor(replies) {
    this.#replies = replies;
  }

  /**
   * Reads, with the client's ops in view. What was read is still so when the branch commits.
   * Several reads at once (`Promise.all`) are one question.
   *
   * @param {Arg[]} cmd such as `["GET", "limit"]`
   * @returns {Promise<any>} its reply
   * @throws {TypeError} at once, if it is no command
   */
  read(cmd) {
    const op = writeOp(cmd, {}, "read");
    const at = this.#read;
    this.#read += 1;
    if (at < this.#replies.length) return Promise.resolve(this.#replies[at]);
    this.#wanted.push(op);
    const why = "the reply is not there yet: the hook will be called again with it";
    const notYet = Promise.reject(new NotReadYet(why));
    // A hook that does not await it must not end the process.
    notYet.catch(() => {});
    return notYet;
  }

  /**
   * Adds a command to the branch, behind the client's ops.
   *
   * @param {Arg[]} cmd
   * @param {OpOptions} [options]
   */
  op(cmd, options = {}) {
    this.#ops.push(writeOp(cmd, options, "op"));
  }

  /**
   * @param {unknown} reply
   * @returns {object} the answer to the agent
   */
  answer(reply) {
    if (this.#wanted.length > 0) return { read: this.#wanted };
    return { ops: this.#ops, ...(reply !== undefined && { reply }) };
  }

  /** Whether the call ended because a reply is not there yet. */
  get isWaiting() {
    return this.#wanted.length > 0;
  }
}

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
export async function answerHook(hook, question, integers = "number") {
  const { reads = [], ...call } = question;
  const stage = new HookStage(/** @type {Reply[]} */ (readReply(reads, integers)));
  try {
    return stage.answer(await hook(call, stage));
  } catch (error) {
    // Also if the hook has made something else of it.
    if (stage.isWaiting) return stage.answer(undefined);
    if (error instanceof Veto) return { veto: { code: error.code, reason: error.message } };
    throw error;
  }
}

/** Questions are smaller: the input, and the replies of all reads, 8 MiB and written as JSON. */
const QUESTION_BYTES_MAX = 64 * 1024 * 1024;

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
export function hookHandler(hook, options = {}) {
  const given = known(options, HOOK_OPTIONS, "the hook's options");
  const { onError = console.error, integers = "number" } = given;
  const token = checkToken(given.token);
  checkIntegers(integers);
  checkFunction(onError, "onError");
  checkFunction(hook, "a hook");
  /** @param {Asked} asked @returns {Promise<Answered>} */
  const answer = async ({ method, authorization, body }) => {
    if (method !== "POST") return plain(405, "a hook is asked by POST");
    const mayAsk = isAllowed(token, authorization);
    if (!mayAsk) return plain(401, "the token is missing or wrong");
    let question;
    try {
      question = await body();
    } catch {
      return plain(400, "the body is no JSON, or too large");
    }
    if (typeof question?.txid !== "string") return plain(400, "this is no question to a hook");
    try {
      const answered = await answerHook(hook, question, integers);
      return { status: 200, type: "application/json", body: writeJson(answered) };
    } catch (error) {
      onError(error);
      return plain(500, "the hook has failed");
    }
  };
  const handler = (/** @type {any} */ request, /** @type {any} */ response) =>
    response === undefined ? toRequest(answer, request) : toNode(answer, request, response);
  return /** @type {HookHandler} */ (handler);
}

/**
 * @typedef {{method: string, authorization: string | null, body: () => Promise<any>}} Asked
 * @typedef {{status: number, type: string, body: string}} Answered
 *
 * @typedef {object} NodeRequest what is used of a request of `node:http` or Express
 * @property {string} [method]
 * @property {Record<string, any>} headers
 * @property {any} [body] where a middleware has read it: parsed, or its bytes or text
 *
 * @typedef {object} NodeResponse what is used of a response of `node:http` or Express
 * @property {(status: number, headers: Record<string, string>) => unknown} writeHead
 * @property {(body: string) => unknown} end
 *
 * @typedef {{
 *   (request: Request): Promise<Response>,
 *   (request: NodeRequest & AsyncIterable<any>, response: NodeResponse): Promise<void>,
 * }} HookHandler
 */

/**
 * @param {(asked: Asked) => Promise<Answered>} answer
 * @param {Request} request
 */
async function toRequest(answer, request) {
  const { status, type, body } = await answer({
    method: request.method,
    authorization: request.headers.get("authorization"),
    body: async () => parseJson(await readText(/** @type {any} */ (request.body) ?? [])),
  });
  return new Response(body, { status, headers: { "content-type": type } });
}

/**
 * @param {(asked: Asked) => Promise<Answered>} answer
 * @param {NodeRequest & AsyncIterable<any>} request
 * @param {NodeResponse} response
 */
async function toNode(answer, request, response) {
  const { status, type, body } = await answer({
    method: request.method ?? "",
    authorization: request.headers.authorization ?? null,
    body: async () => {
      const { body } = request;
      if (typeof body === "string") return parseJson(body);
      if (body instanceof Uint8Array) return parseJson(new TextDecoder().decode(body));
      return body === undefined ? parseJson(await readText(request)) : body;
    },
  });
  const bytes = new TextEncoder().encode(body).length;
  response.writeHead(status, { "content-type": type, "content-length": String(bytes) });
  response.end(body);
}

/** @param {AsyncIterable<Uint8Array> | Iterable<Uint8Array>} chunks */
async function readText(chunks) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let bytes = 0;
  let text = "";
  for await (const chunk of chunks) {
    bytes += chunk.length;
    if (bytes > QUESTION_BYTES_MAX) throw new Error("the body is too large");
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/**
 * @param {number} status
 * @param {string} body
 */
function plain(status, body) {
  return { status, type: "text/plain; charset=utf-8", body };
}

/**
 * @param {string | undefined} token
 * @param {string | null} authorization
 */
function isAllowed(token, authorization) {
  if (token === undefined) return true;
  const digest = (/** @type {string} */ text) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(`Bearer ${token}`), digest(authorization ?? ""));
}
