// Requests to the server that this page came from. The key stays in this module.

import { $, element } from "./dom.js";

let key = "";
let asking = null;

const headers = () => (key ? { authorization: `Bearer ${key}` } : {});

function keyDialog() {
  const title = element("h2", { id: "key-title" }, "This server needs an API key");
  const input = element("input", { id: "key", type: "password", autocomplete: "off", required: true });
  const form = element("form", { method: "dialog" }, title,
    element("label", { htmlFor: "key" }, "API key"), input,
    element("p", { className: "hint" }, "It stays in this page's memory and is gone when you close it."),
    element("button", {}, "Continue"));
  const dialog = element("dialog", { id: "key-dialog" }, form);
  dialog.setAttribute("aria-labelledby", "key-title");
  return dialog;
}

// Ask for the key, once however many requests miss it.
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog") ?? document.body.appendChild(keyDialog());
    dialog.addEventListener(
      "close",
      () => {
        key = $("key").value.trim();
        $("key").value = "";
        asking = null;
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

async function request(path, options) {
  for (;;) {
    const sent = key;
    const response = await fetch(path, {
      ...options,
      headers: { ...options.headers, ...headers() },
    });
    if (response.status !== 401) return response;
    if (sent === key) await askForKey();
  }
}

// What the server says went wrong: every protocol has a sentence of it somewhere.
async function failure(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    return new Error(`${response.status}: ${body.error?.message ?? body.error ?? text}`);
  } catch {
    return new Error(`${response.status}: ${text || response.statusText}`);
  }
}

export async function get(path) {
  const response = await request(path, {});
  if (!response.ok) throw await failure(response);
  return response;
}

export async function send(path, method, body) {
  const given = body === undefined ? {} : { body, headers: { "content-type": "application/json" } };
  return request(path, { method, ...given });
}

// The events of a streamed answer, as objects. Throws the server's sentence when it fails.
export async function* events(path, body, signal) {
  const response = await request(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
    signal,
  });
  if (!response.ok) throw await failure(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (left + value).split(/\r?\n\r?\n/);
    left = blocks.pop();
    for (const block of blocks) {
      const data = block
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trim())
        .join("\n");
      if (!data || data === "[DONE]") continue;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message ?? event.error);
      yield event;
    }
  }
}
