// The types as a service sees them: this is compiled, and never run.

import { Aborted, Client, Committed, Rejected, Transaction, Unknown } from "assent";
import { Veto, answerHook, hookHandler, newId } from "assent";
import type { Arg, Expect, Hook, Interactive, Reply, TransactionOptions, View } from "assent";

const client = new Client(["http://a:7700", "http://b:7700"], { token: "t", integers: "bigint" });

export async function oneRequest(signal: AbortSignal): Promise<string> {
  const options: TransactionOptions = { name: "transfer", timeoutMs: 500, ack: "decided" };
  const expect: Expect = { ge: 0, ne: null };
  const done: Committed = await client.transaction(
    (tx) => tx.op("bank-a", ["DECRBY", "k", 30n], { expect, escrow: true }).input("shop", { a: 1 }),
    { ...options, waitMs: 100, signal },
  );
  const replies: Reply[] = done.replies["bank-a"];
  return `${done.id} ${done.applied} ${replies.length} ${done.branches[0].state}`;
}

export async function outcomes(kept: string): Promise<View | string | null> {
  const transaction = new Transaction({ id: kept, coordinator: client.coordinators[0] });
  const bytes: Arg = new Uint8Array(1);
  try {
    await client.submit(transaction.op("bank-a", ["SET", "k", bytes]));
    return await client.describe(newId());
  } catch (error) {
    if (error instanceof Aborted) return error.veto?.code ?? error.holder?.key ?? error.participant;
    if (error instanceof Unknown) return error.pending ? "pending" : error.id;
    if (error instanceof Rejected && error.retryable) return error.code;
    throw error;
  }
}

export async function interactive(): Promise<number> {
  const left: number = await client.run(
    async (tx) => {
      const expect: Expect = { exists: true };
      const [a] = await tx.ops([{ participant: "bank-a", cmd: ["GET", "k"], expect }]);
      return Number(a ?? (await tx.op("bank-b", ["GET", "k"])));
    },
    { attemptsMax: 3, name: "read" },
  );
  const tx: Interactive = await client.begin({ timeoutMs: 100 });
  const again: Reply[] | null = await tx.again();
  const done: Committed = await tx.commit({ waitMs: 0 });
  await client.interactive(tx.id, tx.seq).close();
  return left + (again?.length ?? 0) + done.branches.length;
}

const hook: Hook = async ({ input, txid }, stage) => {
  if (input.amount > 1) throw new Veto("limit_exceeded", txid);
  stage.op(["INCRBY", "k", Number(await stage.read(["GET", "k"]))]);
};
export const handler = hookHandler(hook, { onError: (error: unknown) => void error });
export const response: Promise<Response> = handler(new Request("http://hook"));
export const answer: Promise<object> = answerHook(hook, {});

// What must not compile.

// @ts-expect-error an op is an array
new Transaction().op("bank-a", "GET k");
// @ts-expect-error a boolean is no argument
new Transaction().op("bank-a", ["SET", "k", true]);
// @ts-expect-error a misspelt condition
new Transaction().op("bank-a", ["GET", "k"], { expect: { gte: 0 } });
// @ts-expect-error the time has its unit in its name
new Transaction({ timeout: 5 });
// @ts-expect-error not one of the three
new Client("http://a", { integers: "int" });
// @ts-expect-error a transaction is written, or submitted
client.transaction(new Transaction());
