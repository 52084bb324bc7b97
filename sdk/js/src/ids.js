// The id of a transaction, which is its idempotency key too: a UUID of version 7.

import { randomBytes } from "node:crypto";

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/**
 * A new id, to keep before anything is sent.
 *
 * @returns {string}
 */
export function newId() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/**
 * @param {unknown} id
 * @returns {string} the id, in lower case
 */
export function checkId(id) {
  const text = typeof id === "string" ? id.toLowerCase() : "";
  if (!UUID_V7.test(text)) throw new TypeError("an id is a UUID of version 7, as newId() makes it");
  return text;
}
