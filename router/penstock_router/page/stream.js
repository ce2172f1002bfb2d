// One streamed answer: a Stop button that works, and its figures.

import { complain } from "./dom.js";
import { events } from "./server.js";

// Calls `take` with every event. `parts`: the elements start, stop, figures, error of a view.
export async function run(path, body, parts, take) {
  const abort = new AbortController();
  const end = () => abort.abort();
  const start = performance.now();
  let first = 0;
  let usage = null;
  complain(parts.error, null);
  parts.start.disabled = true;
  parts.stop.disabled = false;
  parts.stop.addEventListener("click", end);
  try {
    const asked = { ...body, stream: true, stream_options: { include_usage: true } };
    for await (const event of events(path, asked, abort.signal)) {
      first ||= performance.now();
      usage = event.usage ?? usage;
      take(event);
    }
  } catch (error) {
    if (error.name !== "AbortError") complain(parts.error, error);
  } finally {
    parts.stop.removeEventListener("click", end);
    parts.start.disabled = false;
    parts.stop.disabled = true;
    parts.figures.textContent = figures(usage, first - start, performance.now() - first);
  }
}

function figures(usage, untilFirst, rest) {
  if (!usage) return "stopped";
  // Of a few tokens that came at once nothing can be said.
  const speed = rest > 100 ? (1000 * (usage.completion_tokens - 1)) / rest : 0;
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  return [
    `${usage.prompt_tokens} tokens in${cached ? ` (${cached} cached)` : ""}`,
    `${usage.completion_tokens} out`,
    `first after ${Math.round(untilFirst)} ms`,
    ...(speed ? [`${speed.toFixed(0)} tokens/s`] : []),
  ].join(" · ");
}
