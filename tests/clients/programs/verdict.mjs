// What the client programs share: run the checks, print a verdict as verdict.py does.
// A program is `node program.mjs URL FOLDER`; FOLDER holds node_modules.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

export const [URL_, FOLDER] = process.argv.slice(2);
export const QUESTION = "What is the capital of France?";
export const MESSAGES = [{ role: "user", content: QUESTION }];
export { assert };

const require = createRequire(join(FOLDER, "package.json"));

/** A package of the environment. */
export const load = (name) => import(pathToFileURL(require.resolve(name)));

/** Runs every check and prints what each raised. */
export async function verdict(name, checks) {
  const results = {};
  for (const [check, run] of Object.entries(checks)) {
    try {
      await run();
      results[check] = null;
    } catch (error) {
      const cause = error.cause ? ` (${error.cause.message})` : "";
      results[check] = `${error.name}: ${error.message}${cause}`;
    }
  }
  const manifest = join(FOLDER, "node_modules", name, "package.json");
  const { version } = JSON.parse(readFileSync(manifest, "utf8"));
  console.log(JSON.stringify({ client: `${name} ${version}`, checks: results }));
}

/** What a promise is rejected with. */
export async function raised(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("nothing was raised");
}

/** All items of a stream. */
export async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}
