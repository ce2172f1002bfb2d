// Puts the page together: tabs, and the model's card.

import * as chat from "./chat.js";
import * as completion from "./completion.js";
import { $, element } from "./dom.js";
import * as live from "./live.js";
import * as parameters from "./parameters.js";
import { get } from "./server.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

function open(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", chosen);
    one.tabIndex = chosen ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  live.show(tab.id === "tab-live");
}

function move(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs.at((tabs.indexOf(event.target) + step) % tabs.length);
  next.focus();
  open(next);
}

async function card() {
  try {
    const info = await (await get("info")).json();
    $("model-name").textContent = `${info.served_model_name} on ${info.device_name || info.model_device_type}`;
    document.title = `${info.served_model_name} – Penstock`;
    for (const [name, value] of Object.entries(info)) {
      if (value === null) continue;
      const text = typeof value === "object" ? JSON.stringify(value) : String(value);
      $("card").tBodies[0].append(element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, text)));
    }
  } catch (error) {
    $("model-name").textContent = error.message;
  }
}

parameters.build();
chat.build();
completion.build();
live.build();
for (const tab of tabs) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", move);
}
card();
