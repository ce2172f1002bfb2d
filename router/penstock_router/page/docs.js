// The API's document for people: every route, every field, and a box to try it.

import { $, complain, element } from "./dom.js";
import { get, send } from "./server.js";

let schemas = {};

const named = (schema) => schema?.$ref?.split("/").at(-1);
const resolved = (schema) => (schema?.$ref ? schemas[named(schema)] : schema) ?? {};
const choices = (schema) => schema.anyOf ?? schema.oneOf ?? [];

// A type in a few words: "string or null", "list of integer".
function typeOf(schema) {
  if (schema.$ref) return named(schema);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" or ");
  if (choices(schema).length) return [...new Set(choices(schema).map(typeOf))].join(" or ");
  if (schema.type === "array") return `list of ${schema.items ? typeOf(schema.items) : "anything"}`;
  return Array.isArray(schema.type) ? schema.type.join(" or ") : (schema.type ?? "anything");
}

const BOUNDS = {
  minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<",
  minLength: "characters ≥", maxLength: "characters ≤", minItems: "items ≥", maxItems: "items ≤",
};

function bounds(schema) {
  const own = Object.entries(BOUNDS).filter(([name]) => schema[name] !== undefined);
  const said = own.map(([name, sign]) => `${sign} ${schema[name]}`);
  return [...said, ...choices(schema).map(bounds).filter(Boolean)].join(", ");
}

function fields(schema) {
  const body = resolved(schema);
  if (choices(body).length) return choices(body).map(fields).filter(Boolean);
  if (!body.properties) return [];
  const rows = Object.entries(body.properties).map(([name, field]) =>
    element("tr", {},
      element("th", { scope: "row" }, name + (body.required?.includes(name) ? " *" : "")),
      element("td", {}, typeOf(field)),
      element("td", {}, bounds(field)),
      element("td", {}, field.default == null ? "" : JSON.stringify(field.default)),
      element("td", {}, field.description ?? ""),
    ),
  );
  const head = ["field", "type", "bounds", "default", ""].map((text) => element("th", { scope: "col" }, text));
  const table = element("table", {}, element("caption", {}, named(schema) ?? ""),
    element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  return [table];
}

// A body to begin with, by the names of its fields.
const EXAMPLES = {
  inputs: "The capital of France is", prompt: "The capital of France is",
  messages: [{ role: "user", content: "What is the capital of France?" }],
  input: "What is the capital of France?", max_tokens: 16, parameters: { max_new_tokens: 16 },
  tokens: [1, 2, 3], instances: [{ inputs: "The capital of France is" }], text: "Hi",
};

function example(schema) {
  const body = choices(resolved(schema)).length ? resolved(choices(resolved(schema))[0]) : resolved(schema);
  const known = Object.keys(body.properties ?? {}).filter((name) => name in EXAMPLES);
  return Object.fromEntries(known.map((name) => [name, EXAMPLES[name]]));
}

function trial(path, method, schema) {
  const form = element("form");
  const where = element("input", { value: path.slice(1), ariaLabel: "Path" });
  const body = element("textarea", { rows: 6, spellcheck: false, ariaLabel: "Body" });
  body.value = JSON.stringify(example(schema), null, 2);
  const answer = element("pre", { hidden: true, ariaLive: "polite" });
  form.append(where, ...(schema ? [body] : []), element("button", {}, "Try it"), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const response = await send(where.value, method, schema ? body.value : undefined);
      answer.textContent = `${response.status} ${response.statusText}\n`;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part; !(part = await reader.read()).done; ) answer.append(part.value);
    } catch (error) {
      answer.textContent = error.message;
    }
  });
  return form;
}

function route(path, method, operation) {
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  const title = element("summary", {}, element("span", { className: "method" }, method.toUpperCase()),
    element("code", {}, path), ` – ${operation.summary}`);
  const made = element("details", {}, title);
  made.dataset.words = `${method} ${path} ${operation.summary}`.toLowerCase();
  made.addEventListener("toggle", () => {
    if (made.open && made.children.length === 1)
      made.append(trial(path, method.toUpperCase(), schema), ...[schema ? fields(schema) : []].flat(Infinity));
  });
  if (schema) made.dataset.words += ` ${Object.keys(resolved(schema).properties ?? {}).join(" ")}`;
  return made;
}

async function build() {
  const openapi = await (await get("openapi.json")).json();
  schemas = openapi.components.schemas;
  $("model-name").textContent = openapi.info.version;
  for (const [path, operations] of Object.entries(openapi.paths))
    for (const [method, operation] of Object.entries(operations))
      $("routes").append(route(path, method, operation));
  $("filter").addEventListener("input", () => {
    const wanted = $("filter").value.toLowerCase();
    for (const one of $("routes").children) one.hidden = !one.dataset.words.includes(wanted);
  });
}

build().catch((error) => complain($("error"), error));
