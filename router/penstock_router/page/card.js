// The model's card: what a person asks first, then everything that /info says.
import { $, element } from "./dom.js";
import { get } from "./server.js";

const number = (value) => Number(value).toLocaleString("en");
const gibibytes = (bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
const FACTS = [
  ["Model", (info) => info.model_id],
  ["Device", (info) => `${info.num_shard} × ${info.device_name || info.model_device_type}`],
  ["Weights", (info) => info.weights],
  ["Activations", (info) => info.quantized_activations],
  ["Memory in use", (info) =>
    info.memory_total && `${gibibytes(info.memory_used)} of ${gibibytes(info.memory_total)}`],
  ["Prompt and answer", (info) => `up to ${number(info.max_total_tokens)} tokens`],
  ["KV cache", (info) =>
    info.kv_blocks && `${number(info.kv_blocks * info.kv_block_size)} tokens in ${info.kv_cache_dtype}`],
  ["Requests at a time", (info) => `up to ${number(info.max_concurrent_requests)}`],
  ["Largest batch", (info) => info.max_batch_size && number(info.max_batch_size)],
];

function fact(name, text) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, text));
}

function row(name, value) {
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, text));
}

export async function build() {
  try {
    const info = await (await get("info")).json();
    $("model-name").textContent = `${info.served_model_name} on ${info.device_name || info.model_device_type}`;
    document.title = `${info.served_model_name} – Penstock`;
    for (const [name, of] of FACTS) {
      const text = of(info);
      if (text) $("facts").append(fact(name, text));
    }
    for (const [name, value] of Object.entries(info))
      if (value !== null) $("card").tBodies[0].append(row(name, value));
  } catch (error) {
    $("model-name").textContent = error.message;
  }
}
