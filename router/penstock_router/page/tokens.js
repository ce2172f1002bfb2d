// Tokens whose probability and alternatives show on hover and on keyboard focus.

import { element } from "./dom.js";

const tip = element("div", { id: "tip", hidden: true });
tip.setAttribute("role", "tooltip");
document.body.append(tip);

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;
const shown = (token) => JSON.stringify(token).slice(1, -1);

function show(target, { logprob, top }) {
  const lines = [`chosen ${percent(logprob)}`];
  for (const other of top) lines.push(`${percent(other.logprob).padStart(8)}  ${shown(other.token)}`);
  tip.textContent = lines.join("\n");
  tip.hidden = false;
  const box = target.getBoundingClientRect();
  const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(4, left) + scrollX}px`;
  tip.style.top = `${box.bottom + scrollY + 4}px`;
}

// One token: { text, logprob, top: [{ token, logprob }] }.
export function token(given) {
  const probability = Math.exp(given.logprob);
  const level = probability < 0.2 ? " p0" : probability < 0.5 ? " p1" : probability < 0.8 ? " p2" : "";
  const made = element("span", { className: `token${level}`, tabIndex: 0 }, given.text);
  made.setAttribute("aria-label", `${given.text}, ${percent(given.logprob)}`);
  for (const event of ["mouseenter", "focus"]) made.addEventListener(event, () => show(made, given));
  for (const event of ["mouseleave", "blur"]) made.addEventListener(event, () => (tip.hidden = true));
  return made;
}
