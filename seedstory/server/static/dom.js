// Elements from plain values: text is always set as text, so nothing that a story says becomes markup.

export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list" && name !== "form") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function button(text, onclick, props = {}) {
  return el("button", { type: "button", text, onclick, ...props });
}

let counter = 0;

// A control with its label, and a hint that screen readers read with it.
export function field(label, control, hint = "") {
  control.id ||= `field-${++counter}`;
  const note = hint ? el("small", { id: `${control.id}-hint`, text: hint }) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return el("div", { class: "field" }, el("label", { htmlFor: control.id, text: label }), control, note);
}

// What may become of the pages after a changed one.
export const FOLLOWING = [
  ["keep", "Stay as they are"],
  ["redraw", "Are drawn anew", "The same words, new pictures."],
  ["rewrite", "Are written and drawn anew"],
];

// One choice of several: options are [value, label, hint].
export function choice(legend, name, options) {
  const rows = options.map(([value, label, hint], index) =>
    el("label", {}, el("input", { type: "radio", name, value, checked: index === 0 }),
      el("span", {}, label, hint ? el("small", { text: hint }) : null)));
  return el("fieldset", { class: "choice" }, el("legend", { text: legend }), ...rows);
}

const status = () => document.getElementById("status");
const alertBox = () => document.getElementById("alert");

export function say(line) {
  if (status().textContent !== line) status().textContent = line;
}

export function showError(error) {
  const line = error instanceof Error ? error.message : String(error);
  const close = button("Close", clearError, { class: "quiet" });
  alertBox().replaceChildren(el("p", { text: line }), close);
}

export function clearError() {
  alertBox().replaceChildren();
}

// Asks in a dialog; resolves to the form's values, or null where it was closed. What `check` throws is shown in it.
export function ask({ title, body = [], confirm = "OK", cancel = "Cancel", danger = false, check = () => {} }) {
  return new Promise((resolve) => {
    const heading = el("h2", { text: title, id: `dialog-${++counter}` });
    const form = el("form", { method: "dialog" }, heading, ...body);
    const dialog = el("dialog", { "aria-labelledby": heading.id }, form);
    const opener = document.activeElement;
    let answer = null;
    const failure = el("p", { class: "failure", role: "alert" });
    const row = el("div", { class: "row end" }, button(cancel, () => dialog.close(), { class: "quiet" }));
    if (confirm) row.append(el("button", { type: "submit", text: confirm, class: danger ? "danger" : "primary" }));
    form.append(failure, row);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const given = Object.fromEntries(new FormData(form, event.submitter));
      try {
        check(given);
      } catch (error) {
        failure.textContent = error.message;
        return;
      }
      answer = given;
      dialog.close();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (opener?.isConnected) opener.focus();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
