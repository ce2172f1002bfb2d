// Conversations of earlier visits, in this browser's storage and nowhere else.

import { $, element } from "./dom.js";

const PLACE = "penstock.conversations";
const MOST = 50;

let all = [];
let chosen = null;
let redraw = () => {};

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => Array.isArray(one?.messages)) : [];
  } catch {
    return [];
  }
}

function store() {
  all = all.filter((one) => one.messages.length).slice(0, MOST);
  for (; ; all.pop())
    try {
      return localStorage.setItem(PLACE, JSON.stringify(all));
    } catch {  // full, or switched off: the page works without
      if (!all.length) return;
    }
}

function list() {
  const titles = all.map((one, i) =>
    element("option", { value: i, selected: one === chosen }, one.messages[0].content.slice(0, 60)),
  );
  if (!all.includes(chosen)) titles.unshift(element("option", { value: -1, selected: true }, "New conversation"));
  $("history").replaceChildren(...titles);
}

function choose(conversation) {
  chosen = conversation ?? { messages: [] };
  list();
  redraw();
}

export const current = () => chosen;

export function keep(conversation, messages) {
  conversation.messages = messages;
  all = [conversation, ...all.filter((one) => one !== conversation)];
  store();
  list();
}

export function build(draw) {
  redraw = draw;
  all = load();
  chosen = { messages: [] };
  list();
  $("history").addEventListener("change", () => choose(all[Number($("history").value)]));
  $("new-chat").addEventListener("click", () => {
    choose(null);
    $("prompt").focus();
  });
  $("delete-chat").addEventListener("click", () => {
    all = all.filter((one) => one !== chosen);
    store();
    choose(null);
  });
}
