// Charts of what the server does now, from the counters and gauges of /metrics.

import { $, element } from "./dom.js";
import { get } from "./server.js";

const SECONDS = 2;
const KEPT = 150; // points of a chart: five minutes
const FEWEST = 30; // that its width stands for

// The samples of a page, summed over their labels.
export function parse(text) {
  const sums = new Map();
  for (const line of text.split("\n")) {
    const found = /^(\w+)(?:\{.*\})? (\S+)/.exec(line);
    if (found) sums.set(found[1], (sums.get(found[1]) ?? 0) + Number(found[2]));
  }
  return sums;
}

const gauge = (name) => (now) => now.get(name) ?? 0;
const rate = (name) => (now, before, seconds) =>
  before ? ((now.get(name) ?? 0) - (before.get(name) ?? 0)) / seconds : null;
// Of two counters, what the first grew for each that the second grew; none while it rests.
const ratio = (above, below, scale = 1) => (now, before) => {
  const grown = before ? (now.get(below) ?? 0) - (before.get(below) ?? 0) : 0;
  return grown > 0 ? (scale * ((now.get(above) ?? 0) - (before.get(above) ?? 0))) / grown : null;
};
const mean = (name) => ratio(`${name}_sum`, `${name}_count`, 1000);

const CHARTS = [
  ["Output tokens", "tokens/s", rate("penstock_inter_token_latency_seconds_count")],
  ["Finished requests", "a second", rate("tgi_request_success")],
  ["Running sequences", "", gauge("penstock_running_sequences")],
  ["Waiting requests", "", gauge("tgi_queue_size")],
  ["KV cache in use", "%", (now) => 100 * (now.get("penstock_kv_use_ratio") ?? 0)],
  ["Prompt tokens from the prefix cache", "%",
    ratio("penstock_prefix_cache_hit_tokens_total", "penstock_prefix_cache_queried_tokens_total", 100)],
  ["Time to first token, mean", "ms", mean("penstock_time_to_first_token_seconds")],
  ["Time between tokens, mean", "ms", mean("penstock_inter_token_latency_seconds")],
  ["Time in the queue, mean", "ms", mean("tgi_request_queue_duration")],
].map(([title, unit, value]) => ({ title, unit, value, points: [] }));

function draw(chart) {
  const known = chart.points.filter((point) => point !== null);
  const most = Math.max(...known, 0) || 1;
  const width = Math.max(FEWEST, chart.points.length);
  let path = "";
  let drawn = false;
  chart.points.forEach((point, i) => {
    if (point === null) return (drawn = false);
    const x = (100 * (i + width - chart.points.length)) / (width - 1);
    const place = `${x.toFixed(2)} ${(39 - (38 * point) / most).toFixed(2)}`;
    path += drawn ? `L${place}` : `M${place}h0`; // a point that stands alone is a dot
    drawn = true;
  });
  chart.line.setAttribute("d", path);
  const last = known.at(-1);
  const digits = last < 10 && !Number.isInteger(last) ? 2 : 0;
  chart.shown.textContent = last === undefined ? "–" : `${last.toFixed(digits)} ${chart.unit}`;
  const highest = Math.max(...known);
  const its = highest < 10 && !Number.isInteger(highest) ? 2 : 0;
  chart.most.textContent = known.length ? `highest ${highest.toFixed(its)} ${chart.unit}` : "nothing yet";
}

let before = null;
let at = 0;
let timer = 0;

async function sample() {
  try {
    const now = parse(await (await get("metrics")).text());
    const seconds = (performance.now() - at) / 1000;
    at = performance.now();
    for (const chart of CHARTS) {
      chart.points.push(chart.value(now, before, seconds));
      chart.points.splice(0, chart.points.length - KEPT);
      draw(chart);
    }
    before = now;
  } catch (error) {
    for (const chart of CHARTS) chart.shown.textContent = "no answer";
    before = null;
  }
}

export function show(visible) {
  clearInterval(timer);
  if (!visible) return;
  before = null;
  sample();
  timer = setInterval(sample, 1000 * SECONDS);
}

export function build() {
  const space = "http://www.w3.org/2000/svg";
  for (const chart of CHARTS) {
    const drawing = document.createElementNS(space, "svg");
    drawing.setAttribute("class", "chart");
    drawing.setAttribute("viewBox", "0 0 100 40");
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.setAttribute("aria-hidden", "true");
    chart.line = drawing.appendChild(document.createElementNS(space, "path"));
    chart.shown = element("b", {}, "–");
    const caption = element("figcaption", {}, element("span", {}, chart.title), chart.shown);
    chart.most = element("p", { className: "hint" });
    $("charts").append(element("figure", {}, caption, drawing, chart.most));
  }
}
