// What stands in a command and what comes back, between JavaScript and JSON. A value that JSON
// would change or drop without a word is refused here, before anything is sent.

import { checkJson } from "./json.js";

/**
 * An argument of a Redis command: text, a number, or bytes. A `number` beyond 2^53 is refused,
 * because it is rounded already: write a `bigint`.
 *
 * @typedef {string | number | bigint | Uint8Array | ArrayBuffer} Arg
 */

/**
 * The reply of a Redis command: text, an integer (a `bigint` beyond 2^53), bytes that are not
 * UTF-8, nil, or an array of these; of an op in escrow `{at_least, at_most}`, of a hook `{hook:
 * JSON}`. That of a statement is the number of rows that it changed, or its `{rows}`.
 *
 * @typedef {string | number | bigint | Uint8Array | null | any[] | Estimate | HookReply | Rows}
 *   Reply
 * @typedef {{at_least: number | bigint, at_most: number | bigint}} Estimate
 * @typedef {{hook: any}} HookReply
 * @typedef {{rows: Record<string, any>[]}} Rows
 */

/**
 * A parameter of a statement, which PostgreSQL reads by the type that it finds for it. Bytes are
 * written as it writes them, a `Date` by ISO 8601, arrays and objects as JSON text.
 *
 * @typedef {Arg | boolean | null | Date | any[] | object} Param
 */

/**
 * A condition on a reply. Every field that is present must hold; `null` is nil.
 *
 * @typedef {object} Expect
 * @property {Arg | null} [eq] the reply is this
 * @property {Arg | null} [ne] the reply is not this
 * @property {Arg} [gt] the reply is a number greater than this
 * @property {Arg} [ge] the reply is a number, this or greater
 * @property {Arg} [lt] the reply is a number less than this
 * @property {Arg} [le] the reply is a number, this or less
 * @property {boolean} [exists] the reply is there: not nil, not 0, not an empty array
 */

/**
 * Which type the integers of replies have: `"number"` (the default) is a `number` up to 2^53 and a
 * `bigint` beyond; `"bigint"` is always a `bigint`; `"string"` is always text.
 *
 * @typedef {"number" | "bigint" | "string"} Integers
 */

// With the flag `u`, a pair of surrogates is one character, so that this finds single ones only.
const LONE_SURROGATE = /[\uD800-\uDFFF]/u;
const CHUNK_BYTES = 0x8000;

/**
 * @param {unknown} value
 * @param {string} where for the error: which value this is
 * @returns {string | number | {base64: string}} its JSON
 */
export function writeArg(value, where) {
  switch (typeof value) {
    case "string":
      if (LONE_SURROGATE.test(value)) throw new TypeError(`${where} is not well-formed Unicode`);
      return value;
    case "bigint":
      return value.toString();
    case "number":
      if (Number.isFinite(value) && Math.abs(value) <= Number.MAX_SAFE_INTEGER) return value;
      throw new TypeError(`${where} is a number that is not exact: write a bigint or a string`);
    default:
  }
  if (value instanceof ArrayBuffer) return { base64: writeBase64(new Uint8Array(value)) };
  if (value instanceof Uint8Array) return { base64: writeBase64(value) };
  const kind = value === null ? "null" : typeof value;
  throw new TypeError(`${where} is ${kind}: write a string, a number, a bigint or a Uint8Array`);
}

/**
 * @param {unknown} command
 * @param {string} where
 */
export function writeCommand(command, where) {
  if (!Array.isArray(command) || command.length === 0) {
    throw new TypeError(`${where}: a command is an array, such as ["GET", "key"]`);
  }
  return Array.from(command, (word, at) => writeArg(word, `${where}, word ${at}`));
}

/**
 * @param {unknown} params
 * @param {string} where
 */
export function writeParams(params, where) {
  if (!Array.isArray(params)) throw new TypeError(`${where}: the parameters are an array`);
  return Array.from(params, (param, at) => writeParam(param, `${where}, parameter ${at + 1}`));
}

/**
 * @param {unknown} value
 * @param {string} where
 */
function writeParam(value, where) {
  if (value === null || typeof value === "boolean") return value;
  if (value instanceof Date) return value.toISOString();
  const bytes = value instanceof ArrayBuffer ? new Uint8Array(value) : value;
  // As PostgreSQL writes a bytea.
  if (bytes instanceof Uint8Array) return `\\x${Array.from(bytes, hex).join("")}`;
  if (typeof value !== "object") return writeArg(value, where);
  checkJson(value, where);
  return value;
}

/** @param {number} byte */
function hex(byte) {
  return byte.toString(16).padStart(2, "0");
}

/**
 * @param {unknown} expect
 * @param {string} where
 */
export function writeExpect(expect, where) {
  /** @type {Record<string, unknown>} */
  const written = {};
  for (const [field, value] of Object.entries(known(expect, EXPECT_FIELDS, `${where}, expect`))) {
    const place = `${where}, expect.${field}`;
    if (field === "exists") {
      if (typeof value !== "boolean") throw new TypeError(`${place} is true or false`);
      written[field] = value;
    } else {
      const mayBeNil = value === null && (field === "eq" || field === "ne");
      written[field] = mayBeNil ? null : writeArg(value, place);
    }
  }
  return written;
}

const EXPECT_FIELDS = ["eq", "ne", "gt", "ge", "lt", "le", "exists"];

/**
 * Refuses what is misspelt, and what is there and `undefined`: a guard, a key or a deadline must
 * not be lost because a variable was empty.
 *
 * @param {unknown} options
 * @param {readonly string[]} fields
 * @param {string} where
 * @returns {Record<string, any>}
 */
export function known(options, fields, where) {
  const given = checkObject(options, where);
  for (const [field, value] of Object.entries(given)) {
    if (!fields.includes(field)) {
      throw new TypeError(`${where} has no ${JSON.stringify(field)}: it has ${fields.join(", ")}`);
    }
    if (value === undefined) throw new TypeError(`${where}.${field} is undefined: leave it out`);
  }
  return given;
}

/**
 * @param {unknown} options
 * @param {string} where
 * @returns {Record<string, any>}
 */
export function checkObject(options, where) {
  if (typeof options === "object" && options !== null && !Array.isArray(options)) return options;
  throw new TypeError(`${where} is no object`);
}

/**
 * @param {any} signal
 * @returns {AbortSignal | undefined}
 */
export function checkSignal(signal) {
  const isSignal = typeof signal?.throwIfAborted === "function";
  if (signal === undefined || isSignal) return signal;
  throw new TypeError("signal is an AbortSignal");
}

/**
 * @param {unknown} token as it was given, or as a file has it, with a line break at its end
 * @returns {string | undefined}
 */
export function checkToken(token) {
  if (token === undefined) return undefined;
  const text = typeof token === "string" ? token.trim() : "";
  // The error must not show it, as that of fetch would.
  if (/^[\x20-\x7e]+$/.test(text)) return text;
  throw new TypeError("the token is empty, or has characters that a header cannot carry");
}

/** @param {unknown} integers */
export function checkIntegers(integers) {
  if (integers === "number" || integers === "bigint" || integers === "string") return integers;
  throw new TypeError('integers is "number", "bigint" or "string"');
}

/**
 * @template {Function} F
 * @param {F} value
 * @param {string} where
 * @returns {F}
 */
export function checkFunction(value, where) {
  if (typeof value !== "function") throw new TypeError(`${where} is a function`);
  return value;
}

/**
 * @param {any} reply as JSON has it
 * @param {Integers} integers
 * @returns {Reply}
 */
export function readReply(reply, integers) {
  if (Array.isArray(reply)) return reply.map((item) => readReply(item, integers));
  if (typeof reply === "object" && reply !== null) {
    if (typeof reply.base64 === "string") return readBase64(reply.base64);
    // What a hook replies is JSON of the service's own, and stays as it is.
    if ("hook" in reply) return reply;
    if (Array.isArray(reply.rows)) {
      return { rows: reply.rows.map((/** @type {any} */ row) => readFields(row, integers)) };
    }
    return readFields(reply, integers);
  }
  if (typeof reply === "bigint" || Number.isInteger(reply)) return asInteger(reply, integers);
  return reply;
}

/**
 * @param {any} fields those of an estimate, or of a row
 * @param {Integers} integers
 */
function readFields(fields, integers) {
  const read = Object.entries(fields).map(([name, value]) => [name, readColumn(value, integers)]);
  return Object.fromEntries(read);
}

/**
 * A column of JSON may look like bytes, and need not be any: what cannot be read as such stays.
 *
 * @param {any} value
 * @param {Integers} integers
 * @returns {any}
 */
function readColumn(value, integers) {
  if (Array.isArray(value)) return value.map((item) => readColumn(item, integers));
  if (typeof value !== "object" || value === null) return readReply(value, integers);
  if (typeof value.base64 !== "string" || Object.keys(value).length > 1) return value;
  try {
    return readBase64(value.base64);
  } catch {
    return value;
  }
}

/**
 * The replies of several ops; nothing if they are none.
 *
 * @param {unknown} replies as JSON has them
 * @param {Integers} integers
 * @returns {Reply[] | null}
 */
export function readReplies(replies, integers) {
  try {
    return Array.isArray(replies) ? replies.map((reply) => readReply(reply, integers)) : null;
  } catch {
    return null;
  }
}

/**
 * @param {number | bigint} integer
 * @param {Integers} integers
 */
function asInteger(integer, integers) {
  if (integers === "bigint") return BigInt(integer);
  return integers === "string" ? integer.toString() : integer;
}

/** @param {Uint8Array} bytes */
function writeBase64(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    binary += String.fromCharCode(...bytes.subarray(at, at + CHUNK_BYTES));
  }
  return btoa(binary);
}

/** @param {string} text */
function readBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
