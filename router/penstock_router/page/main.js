// Puts the page together, and its tabs.

import * as card from "./card.js";
import * as chat from "./chat.js";
import * as completion from "./completion.js";
import { $ } from "./dom.js";
import * as live from "./live.js";
import * as parameters from "./parameters.js";

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
  const at = tabs.indexOf(event.target);
  const next = {
    ArrowRight: tabs.at((at + 1) % tabs.length), ArrowLeft: tabs.at(at - 1), Home: tabs[0], End: tabs.at(-1),
  }[event.key];
  if (!next) return;
  event.preventDefault();
  next.focus();
  open(next);
}

parameters.build();
chat.build();
completion.build();
live.build();
for (const tab of tabs) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", move);
}
card.build();
