// The cast and the plan of a story: their strip, and the form that changes them from a page on.
import { post } from "./api.js";
import { ask, choice, el, field, FOLLOWING } from "./dom.js";

export const lines = (text) => text.split("\n").map((one) => one.trim()).filter(Boolean);

// The characters of a text with a line for each, or null where it has none.
export function castOf(text) {
  const cast = {};
  for (const line of lines(text)) {
    const at = line.indexOf(":");
    if (at < 1) throw new Error(`Write a character as "Mia: fox, red coat", not "${line.slice(0, 60)}".`);
    const name = line.slice(0, at).trim();
    if (Object.hasOwn(cast, name)) throw new Error(`${name} has two lines: give each character one.`);
    cast[name] = line.slice(at + 1).trim();
  }
  return Object.keys(cast).length ? cast : null;
}

export const castText = (cast) => Object.entries(cast).map(([name, look]) => `${name}: ${look}`).join("\n");

export function castStrip(cast) {
  return [el("span", { class: "label", text: "Cast" }), el("ul", {}, ...Object.entries(cast).map(([name, look]) =>
    el("li", {}, el("strong", { text: name, dir: "auto" }), el("span", { text: look, dir: "auto" }))))];
}

// The states of a story: the page before which each stands, its cast, its plan, and the numbers of the plan's pages.
export function statesOf(story) {
  const starts = story.pages.filter((page) => page.cast && story.pages[page.number]);
  return starts.map((page, index) => {
    const from = page.number + 1;
    const most = (starts[index + 1]?.number ?? story.pages_total) - page.number;
    const count = Math.min(page.plan.length || most, most);
    return { page: story.pages[page.number], cast: page.cast, plan: page.plan, numbers: Array.from({ length: count }, (_, at) => from + at) };
  });
}

function whyNone(view) {
  if (!view.info.story_state) {
    return `The model “${view.info.model}” writes no cast and no plan, so there is nothing to change. To keep a ` +
      "character as it is, say in each page's words what it looks like.";
  }
  return view.isUnderWay
    ? "The cast and the plan are written with page 2: come back when it is there."
    : "This story has no cast and no plan: it follows your own script, or was begun by another model.";
}

// Asks for another cast and plan, and has the pages made that they ask for.
export async function changeState(view) {
  const states = statesOf(view.story);
  if (!states.length) {
    await ask({ title: "Cast and plan", body: [el("p", { text: whyNone(view) })], confirm: "", cancel: "Close" });
    return;
  }
  const cast = el("textarea", { name: "cast", rows: 4, dir: "auto" });
  const plan = el("fieldset", { class: "plan" });
  const from = el("select", { name: "from" }, ...states.map((state, index) =>
    el("option", { value: String(index), text: `Page ${state.page.number}` })));
  const show = () => {
    const state = states[Number(from.value)];
    cast.value = castText(state.cast);
    plan.replaceChildren(el("legend", { text: "Plan: what happens on each page" }), ...state.numbers.map((number, at) =>
      el("label", {}, el("span", { text: `Page ${number}` }),
        el("input", { name: `plan-${at}`, value: state.plan[at] ?? "", maxLength: 200, dir: "auto", autocomplete: "off" }))));
  };
  from.addEventListener("change", show);
  show();
  const where = states.length > 1
    ? field("From which page on", from, "A cast and a plan stand before page 2 and before each chapter.")
    : el("p", { class: "soft", text: `They hold from page ${states[0].page.number} on.` });
  const following = choice("The pages from there on", "following", FOLLOWING);
  following.querySelector("[value=redraw]").checked = true;
  const unread = view.info.story_state ? null
    : el("p", { class: "failure", text: `The model “${view.info.model}” does not read them: new pages will not follow.` });
  const values = await ask({
    title: "Cast and plan", confirm: "Keep them",
    body: [unread, where, field("Cast", cast, "A line for each: name, colon, look."), plan, following].filter(Boolean),
    check: (given) => castOf(given.cast),
  });
  if (!values) return;
  const state = states[Number(values.from ?? 0)];
  const planned = state.numbers.map((_, at) => values[`plan-${at}`].trim());
  const body = { cast: castOf(values.cast) ?? {}, following: values.following };
  if (planned.some((line, at) => line !== (state.plan[at] ?? ""))) body.plan = planned.some(Boolean) ? planned : [];
  await view.act(() => post(view.path(`/pages/${state.page.id}/state`), body));
}
