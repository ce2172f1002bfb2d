// The conversation: history in this browser, streaming, schema, tools.

import { $, complain, element, say } from "./dom.js";
import * as conversations from "./conversations.js";
import * as parameters from "./parameters.js";
import { run } from "./stream.js";
import { append } from "./tokens.js";

const PARTS = () => ({
  start: $("send"), stop: $("stop"), figures: $("chat-figures"), error: $("chat-error"),
});

function bubble(role, content = "") {
  const text = element("div", { className: "answer" }, content);
  const item = element("li", { className: role }, element("b", {}, role), text);
  $("messages").append(item);
  item.scrollIntoView({ block: "nearest" });
  return { item, text };
}

function callText(call) {
  return `${call.function.name}(${call.function.arguments})`;
}

function drawAll() {
  $("messages").replaceChildren();
  for (const message of conversations.current().messages) {
    const { item } = bubble(message.role, message.content ?? "");
    for (const call of message.tool_calls ?? [])
      item.append(element("div", { className: "call" }, callText(call)));
  }
}

// Collects the deltas of one answer into a message, and draws them.
class Answer {
  constructor() {
    this.message = { role: "assistant", content: "" };
    this.drawn = bubble("assistant");
    this.calls = [];
  }

  take(event) {
    const choice = event.choices?.[0];
    if (!choice) return;
    const { content, reasoning_content: reasoning, tool_calls: calls } = choice.delta;
    if (reasoning) this.reason(reasoning);
    if (content) this.write(content, choice.logprobs?.content);
    for (const call of calls ?? []) this.call(call);
  }

  reason(text) {
    this.reasoning ??= this.drawn.item.insertBefore(
      element("div", { className: "answer reasoning" }), this.drawn.text,
    );
    this.reasoning.append(text);
  }

  write(text, logprobs) {
    this.message.content += text;
    const whole = logprobs?.map((one) => one.token).join("") === text;
    if (!whole) return this.drawn.text.append(text);
    for (const one of logprobs)
      append(this.drawn.text, { text: one.token, logprob: one.logprob, top: one.top_logprobs ?? [] });
  }

  call({ index, id, function: { name, arguments: given } }) {
    const known = (this.calls[index] ??= {
      id, type: "function", function: { name: "", arguments: "" },
      line: this.drawn.item.appendChild(element("div", { className: "call" })),
    });
    known.function.name += name ?? "";
    known.function.arguments += given ?? "";
    known.line.textContent = callText(known);
  }

  finished() {
    const calls = this.calls.map(({ id, type, function: called }) => ({ id, type, function: called }));
    return calls.length ? { ...this.message, tool_calls: calls } : this.message;
  }
}

function request(messages) {
  const system = $("system").value.trim();
  const schema = parameters.json("schema", "The JSON schema");
  const tools = parameters.json("tools", "The list of tools");
  return {
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    ...parameters.read(),
    ...($("probabilities").checked && { logprobs: true, top_logprobs: 5 }),
    ...(schema && {
      response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema } },
    }),
    ...(tools && { tools }),
  };
}

async function send(event) {
  event.preventDefault();
  if ($("send").disabled) return;
  const conversation = conversations.current();
  const messages = [...conversation.messages, { role: "user", content: $("prompt").value }];
  let body;
  try {
    body = request(messages);
  } catch (error) {
    return complain($("chat-error"), error);
  }
  bubble("user", $("prompt").value);
  $("prompt").value = "";
  const answer = new Answer();
  await run("v1/chat/completions", body, PARTS(), (one) => answer.take(one));
  const said = answer.finished();
  if (said.content || said.tool_calls) {
    conversations.keep(conversation, [...messages, said]);
    say([said.content, ...(said.tool_calls ?? []).map(callText)].filter(Boolean).join("\n"));
  } else {  // nothing came: the question goes back to where it was written
    $("prompt").value ||= messages.at(-1).content;
    drawAll();
  }
}

export function build() {
  conversations.build(drawAll);
  drawAll();
  $("chat-form").addEventListener("submit", send);
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $("chat-form").requestSubmit();
    }
  });
  for (const [id, name] of [["schema", "The JSON schema"], ["tools", "The list of tools"]])
    $(id).addEventListener("input", () => {
      try {
        $(`${id}-state`).textContent = parameters.json(id, name) === undefined ? "" : "valid JSON";
      } catch (error) {
        $(`${id}-state`).textContent = error.message;
      }
    });
}
