// Assent's client for JavaScript: one transaction over several Redis servers.

export { Client } from "./client.js";
export { HookStage, Veto, answerHook, hookHandler } from "./hook.js";
export { newId } from "./ids.js";
export { Interactive } from "./interactive.js";
export { Aborted, AssentError, Committed, Rejected, Unknown } from "./outcome.js";
export { Transaction } from "./transaction.js";

/**
 * @typedef {import("./client.js").ClientOptions} ClientOptions
 * @typedef {import("./client.js").RunOptions} RunOptions
 * @typedef {import("./transaction.js").WaitOptions} WaitOptions
 * @typedef {import("./hook.js").Hook} Hook
 * @typedef {import("./hook.js").HookCall} HookCall
 * @typedef {import("./hook.js").HookOptions} HookOptions
 * @typedef {import("./interactive.js").BeginOptions} BeginOptions
 * @typedef {import("./interactive.js").OpAt} OpAt
 * @typedef {import("./outcome.js").Branch} Branch
 * @typedef {import("./outcome.js").View} View
 * @typedef {import("./transaction.js").OpOptions} OpOptions
 * @typedef {import("./transaction.js").TransactionOptions} TransactionOptions
 * @typedef {import("./values.js").Arg} Arg
 * @typedef {import("./values.js").Expect} Expect
 * @typedef {import("./values.js").Integers} Integers
 * @typedef {import("./values.js").Param} Param
 * @typedef {import("./values.js").Reply} Reply
 */
