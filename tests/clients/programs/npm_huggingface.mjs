// @huggingface/inference against an endpoint of one's own.

import { all, assert, load, MESSAGES, QUESTION, raised, URL_, verdict } from "./verdict.mjs";

const { InferenceClient } = await load("@huggingface/inference");
const client = new InferenceClient("hf_none", { endpointUrl: URL_ });

await verdict("@huggingface/inference", {
  async generates() {
    const answer = await client.textGeneration({
      inputs: QUESTION, parameters: { max_new_tokens: 20, return_full_text: false },
    });
    assert.match(answer.generated_text, /Paris/);
  },
  async generates_in_a_stream() {
    // without a provider it reads OpenAI's route, and hands its chunks on as they are
    const chunks = await all(
      client.textGenerationStream({
        inputs: QUESTION, parameters: { max_new_tokens: 20, return_full_text: false },
      }),
    );
    assert.match(chunks.map((chunk) => chunk.choices[0]?.text ?? "").join(""), /Paris/);
  },
  async chats() {
    const answer = await client.chatCompletion({
      messages: MESSAGES, max_tokens: 20, temperature: 0,
    });
    assert.match(answer.choices[0].message.content, /Paris/);
  },
  async chats_in_a_stream() {
    const chunks = await all(
      client.chatCompletionStream({ messages: MESSAGES, max_tokens: 20, temperature: 0 }),
    );
    assert.match(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), /Paris/);
  },
  async reads_a_refused_chat() {
    const error = await raised(client.chatCompletion({ messages: MESSAGES, temperature: -1 }));
    assert.match(`${error.message} ${JSON.stringify(error.httpResponse ?? "")}`, /temperature/);
  },
  async reads_a_refused_generation() {
    const error = await raised(
      client.textGeneration({ inputs: QUESTION, parameters: { temperature: -1 } }),
    );
    assert.match(`${error.message} ${JSON.stringify(error.httpResponse ?? "")}`, /temperature/);
  },
});
