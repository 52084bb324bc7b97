// The examples of the pages do what they say, as they are printed.

import assert from "node:assert/strict";
import { mkdtempSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import { addressOf, close, listen, startDev } from "../support/world.js";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const PAGES = ["README.md", "../../docs/guides/javascript.md"];
const PRINTS = /^ *console\.log\(.*\); \/\/ (.*)$/gm;
const SERVES = /createServer\((.*)\)\.listen\(8080, "127\.0\.0\.1"\);/;

describe("the examples of a page", () => {
  let folder;
  let handler;
  let hookServer;
  before(async () => {
    // As npm installs a folder.
    folder = mkdtempSync(path.join(tmpdir(), "assent-pages-"));
    mkdirSync(path.join(folder, "node_modules"));
    symlinkSync(PACKAGE, path.join(folder, "node_modules/assent"), "dir");
    hookServer = await listen(http.createServer((request, response) => handler(request, response)));
  });
  after(async () => {
    await close(hookServer);
    rmSync(folder, { recursive: true });
  });

  for (const page of PAGES) {
    test(page, async () => {
      const hook = `credit=${addressOf(hookServer)}/`;
      const dev = await startDev(["--participants", "bank-a,bank-b,credit", "--hook", hook]);
      const text = readFileSync(path.join(PACKAGE, page), "utf8");
      const code = [...text.matchAll(/^```js\n(.*?)^```$/gms)].map(([, block]) => block).join("\n");
      const said = [];
      globalThis.examples = {
        print: (...words) => said.push(words.join(" ")),
        serve: (served) => (handler = served),
      };
      const module = path.join(folder, `${path.basename(page)}.mjs`);
      writeFileSync(
        module,
        code
          .replaceAll("http://127.0.0.1:7700", dev.url)
          .replaceAll("console.log(", "examples.print(")
          .replace(SERVES, "examples.serve($1);"),
      );
      try {
        await import(pathToFileURL(module));
      } finally {
        await dev.stop();
      }
      const promised = [...code.matchAll(PRINTS)].map(([, words]) => words);
      assert.ok(promised.length > 0);
      assert.deepEqual(said, promised);
    });
  }
});
