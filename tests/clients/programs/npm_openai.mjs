// npm's openai as a web page uses it: with the preflight of a browser.

import { browserFetch } from "./browser.mjs";
import { all, assert, load, MESSAGES, QUESTION, raised, URL_, verdict } from "./verdict.mjs";

const { default: OpenAI } = await load("openai");
const client = new OpenAI({
  baseURL: `${URL_}/v1`,
  apiKey: "none",
  organization: "org",
  project: "project",
  maxRetries: 0,
  timeout: 20_000,
  dangerouslyAllowBrowser: true,
  fetch: browserFetch,
});
const model = "gpt-4o";

await verdict("openai", {
  async chats() {
    const answer = await client.chat.completions.create({
      model, messages: MESSAGES, max_tokens: 20, temperature: 0,
    });
    assert.match(answer.choices[0].message.content, /Paris/);
  },
  async chats_in_a_stream() {
    const stream = await client.chat.completions.create({
      model, messages: MESSAGES, max_tokens: 20, temperature: 0, stream: true,
    });
    const chunks = await all(stream);
    assert.match(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), /Paris/);
  },
  async accumulates_a_stream() {
    const stream = client.chat.completions.stream({
      model, messages: MESSAGES, max_tokens: 20, temperature: 0,
    });
    assert.match(await stream.finalContent(), /Paris/);
  },
  async completes() {
    const answer = await client.completions.create({
      model, prompt: QUESTION, max_tokens: 20, temperature: 0,
    });
    assert.match(answer.choices[0].text, /Paris/);
  },
  async lists_models() {
    assert.equal((await client.models.list()).data.length, 1);
  },
  async sees_the_request_id() {
    const { request_id } = await client.chat.completions
      .create({ model, messages: MESSAGES, max_tokens: 1 })
      .withResponse();
    assert.ok(request_id);
  },
  async reads_a_refusal() {
    const error = await raised(
      client.chat.completions.create({ model, messages: MESSAGES, temperature: -1 }),
    );
    assert.equal(error.status, 422);
    assert.match(error.message, /temperature/);
  },
  async sends_its_own_headers() {
    const answer = await client.chat.completions.create(
      { model, messages: MESSAGES, max_tokens: 1 },
      { headers: { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-request-id": "one" } },
    );
    assert.ok(answer.choices.length);
  },
});
