// JSON whose integers stay exact. JSON.parse rounds what is beyond 2^53, JSON.stringify refuses a
// bigint, and money is there.

import { randomUUID } from "node:crypto";

const LONG_NUMBER = /\d{16}/;
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/gs;

/**
 * Parses JSON. An integer beyond 2^53 becomes a `bigint`, every other number a `number`.
 *
 * @param {string} text
 * @returns {any}
 * @throws {SyntaxError} if the text is no JSON
 */
export function parseJson(text) {
  const plain = JSON.parse(text);
  if (!LONG_NUMBER.test(text)) return plain;
  // No string of the text can begin with a mark that is drawn now.
  const mark = newMark();
  const marked = text.replace(TOKEN, (token) => (isRounded(token) ? `"${mark}${token}"` : token));
  return JSON.parse(marked, (_, value) =>
    typeof value === "string" && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value,
  );
}

/** @param {string} token */
function isRounded(token) {
  return /^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token));
}

/**
 * Writes JSON, a `bigint` as the number that it is.
 *
 * @param {unknown} value
 * @returns {string}
 */
export function writeJson(value) {
  const mark = newMark();
  let marks = 0;
  const text = JSON.stringify(value, (_, item) => {
    if (typeof item !== "bigint") return item;
    marks += 1;
    return `${mark}${item}`;
  });
  return marks === 0 ? text : text.replace(new RegExp(`"${mark}(-?\\d+)"`, "g"), "$1");
}

function newMark() {
  return `${randomUUID()}:`;
}

/**
 * Whether a value goes through JSON and comes back the same in kind: nothing that JSON drops, or
 * turns into `null`.
 *
 * @param {any} value
 * @param {string} where for the error: which value this is
 */
export function checkJson(value, where) {
  switch (typeof value) {
    case "string":
    case "boolean":
    case "bigint":
      return;
    case "number":
      if (Number.isFinite(value)) return;
      throw new TypeError(`${where} is ${value}, which JSON would turn into null`);
    case "object":
      if (value === null || typeof value.toJSON === "function") return;
      for (const [name, item] of Object.entries(value)) {
        // As JSON does, a field that is undefined is left out; an item of an array cannot be.
        if (item !== undefined || Array.isArray(value)) checkJson(item, `${where}.${name}`);
      }
      return;
    default:
      throw new TypeError(`${where} is ${typeof value}, which is no JSON`);
  }
}
