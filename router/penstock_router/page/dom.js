// Elements, made without markup: whatever a model writes stays text.

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// For screen readers, once: an answer as a whole, not token by token.
export function say(text) {
  $("said").textContent = text;
}

// The sentence of an error below a form, or none.
export function complain(place, error) {
  place.hidden = !error;
  place.textContent = error ? error.message : "";
}
