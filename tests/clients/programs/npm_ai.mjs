// npm's ai, Vercel's SDK, by its provider for servers that speak OpenAI's API.

import { assert, load, QUESTION, URL_, verdict } from "./verdict.mjs";

const { generateText, streamText } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const provider = createOpenAICompatible({ name: "penstock", baseURL: `${URL_}/v1`, apiKey: "none" });
const model = provider("gpt-4o");
const common = { model, prompt: QUESTION, temperature: 0, maxOutputTokens: 30, maxRetries: 0 };

await verdict("ai", {
  async generates() {
    const { text, usage } = await generateText(common);
    assert.match(text, /Paris/);
    assert.ok(usage.outputTokens > 0);
  },
  async streams() {
    let text = "";
    for await (const piece of streamText(common).textStream) text += piece;
    assert.match(text, /Paris/);
  },
});
