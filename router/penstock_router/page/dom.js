// Elements, made without markup: whatever a model writes stays text.

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The sentence of an error below a form, or none.
export function complain(place, error) {
  place.hidden = !error;
  place.textContent = error ? error.message : "";
}
