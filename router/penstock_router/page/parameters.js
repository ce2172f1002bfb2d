// The sampling parameters of both views, read when a request is sent.

import { $, element } from "./dom.js";

const FIELDS = [
  { name: "temperature", label: "Temperature", value: "0.7", min: 0, max: 2, step: 0.1 },
  { name: "top_p", label: "Top p", value: "1", min: 0.01, max: 1, step: 0.01 },
  { name: "top_k", label: "Top k (0: off)", value: "0", min: 0, step: 1 },
  { name: "max_tokens", label: "Most tokens", value: "256", min: 1, step: 1 },
  { name: "frequency_penalty", label: "Frequency penalty", value: "0", min: -2, max: 2, step: 0.1 },
  { name: "seed", label: "Seed", value: "", min: 0, step: 1 },
];

export function build() {
  for (const { name, label, ...properties } of FIELDS) {
    const input = element("input", { id: `p-${name}`, type: "number", ...properties });
    $("parameters").append(
      element("div", {}, element("label", { htmlFor: input.id }, label), input),
    );
  }
  const stop = element("input", { id: "p-stop", placeholder: "text that ends the answer" });
  $("parameters").append(element("div", {}, element("label", { htmlFor: "p-stop" }, "Stop"), stop));
}

// Fields that are empty are not sent, so that the server's own defaults hold.
export function read() {
  const given = {};
  for (const { name } of FIELDS) {
    const text = $(`p-${name}`).value;
    if (text !== "" && !(name === "top_k" && text === "0")) given[name] = Number(text);
  }
  if ($("p-stop").value) given.stop = [$("p-stop").value];
  return given;
}

// What a box of JSON holds; undefined when it is empty. Throws with the name of the box.
export function json(id, name) {
  const text = $(id).value.trim();
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name} is not valid JSON: ${error.message}`);
  }
}
