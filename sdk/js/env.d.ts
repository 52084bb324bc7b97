// What is used of Node and of later TypeScript, so that types are checked without a package for them.

declare module "node:crypto" {
  interface Bytes extends Uint8Array {
    toString(encoding?: string): string;
    writeUIntBE(value: number, at: number, bytes: number): number;
  }
  function createHash(name: string): {
    update(text: string): { digest(): Uint8Array };
  };
  function randomBytes(count: number): Bytes;
  function randomUUID(): string;
  function timingSafeEqual(one: Uint8Array, other: Uint8Array): boolean;
}

declare module "node:diagnostics_channel" {
  function subscribe(channel: string, listener: (message: any) => void): void;
}

interface SymbolConstructor {
  readonly asyncDispose: unique symbol;
}
