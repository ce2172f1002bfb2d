// A text that the model continues as it stands, without a chat template.

import { $, say } from "./dom.js";
import * as parameters from "./parameters.js";
import { run } from "./stream.js";
import { append } from "./tokens.js";

const PARTS = () => ({
  start: $("completion-form").querySelector("button"), stop: $("completion-stop"),
  figures: $("completion-figures"), error: $("completion-error"),
});

function take(event) {
  const choice = event.choices?.[0];
  if (!choice?.text) return;
  const { tokens = [], token_logprobs: logprobs = [], top_logprobs: tops } = choice.logprobs ?? {};
  if (tokens.join("") !== choice.text) return $("continued").append(choice.text);
  tokens.forEach((text, i) => {
    const top = Object.entries(tops?.[i] ?? {}).map(([other, logprob]) => ({ token: other, logprob }));
    append($("continued"), { text, logprob: logprobs[i], top });
  });
}

export function build() {
  $("completion-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (PARTS().start.disabled) return;
    $("continued").replaceChildren();
    const asked = { prompt: $("text").value, ...parameters.read() };
    if ($("probabilities").checked) asked.logprobs = 5;
    await run("v1/completions", asked, PARTS(), take);
    say($("continued").textContent);
  });
}
