// Tokens whose probability and alternatives show on hover, on a tap and on keyboard focus.
//
// Of a text one token is in the order of Tab; the arrows go from there to the others, so that a
// long answer does not stand between the keyboard and what follows it.
import { element } from "./dom.js";

const tip = element("div", { id: "tip", hidden: true });
tip.setAttribute("role", "tooltip");
document.body.append(tip);

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;
const shown = (token) => JSON.stringify(token).slice(1, -1);

// The chosen token and its alternatives, with the likeliest first.
function lines({ text, logprob, top }) {
  const others = top.filter((other) => other.token !== text);
  const all = [...others, { token: text, logprob, chosen: true }];
  return all
    .sort((one, other) => other.logprob - one.logprob)
    .map(({ token, logprob: its, chosen }) =>
      element("div", { className: chosen ? "chosen" : "" },
        `${percent(its).padStart(8)}  ${shown(token)}${chosen ? "  ← chosen" : ""}`));
}

function show(target, given) {
  tip.replaceChildren(...lines(given));
  tip.hidden = false;
  const box = target.getBoundingClientRect();
  const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(4, left) + scrollX}px`;
  tip.style.top = `${box.bottom + scrollY + 4}px`;
}

const hide = () => (tip.hidden = true);

function move(event) {
  if (event.key === "Escape") return hide();
  const all = [...event.currentTarget.parentElement.querySelectorAll(".token")];
  const at = all.indexOf(event.currentTarget);
  const next = { ArrowRight: all[at + 1], ArrowLeft: all[at - 1], Home: all[0], End: all.at(-1) }[event.key];
  if (!next) return;
  event.preventDefault();
  event.currentTarget.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

// Append one token to a text: { text, logprob, top: [{ token, logprob }] }.
export function append(place, given) {
  const probability = Math.exp(given.logprob);
  const level = probability < 0.2 ? " p0" : probability < 0.5 ? " p1" : probability < 0.8 ? " p2" : "";
  const tabIndex = place.querySelector(".token") ? -1 : 0;
  const [, space, word] = /^(\s*)([^]*)$/.exec(given.text);
  const made = element("span", { className: `token${level}`, tabIndex }, space, element("span", {}, word));
  made.setAttribute("aria-describedby", "tip");
  for (const event of ["mouseenter", "focus", "click"]) made.addEventListener(event, () => show(made, given));
  for (const event of ["mouseleave", "blur"]) made.addEventListener(event, hide);
  made.addEventListener("keydown", move);
  place.append(made);
}
