// The page: a view for each address. `#/` is the desk (a new story, the library), `#/story/ID` one story.
import { get } from "./api.js";
import { Desk } from "./desk.js";
import { button, clearError, el, say, showError } from "./dom.js";
import { StoryView } from "./story.js";

const root = document.getElementById("view");
let info = null;
let view = null;
let turn = 0;

async function show() {
  const mine = ++turn;
  view?.close();
  view = null;
  clearError();
  say("");
  try {
    info ??= await get("/api/info");
    const id = /^#\/story\/([\w-]+)$/.exec(location.hash)?.[1];
    const next = id ? new StoryView(id, info) : new Desk(info);
    await next.open();
    if (mine !== turn) {
      next.close();
      return;
    }
    view = next;
    root.replaceChildren(next.element);
    document.title = `${next.title} · Seedstory`;
    window.scrollTo(0, 0);
    if (document.activeElement === document.body || !document.activeElement?.isConnected) {
      root.focus({ preventScroll: true });
    }
  } catch (error) {
    if (mine !== turn) return;
    showError(error);
    root.replaceChildren(el("div", { class: "empty" },
      el("h1", { text: error.status === 404 ? "There is no such story here" : "That did not work" }),
      el("div", { class: "row" }, button("Try once more", show, { class: "primary" }),
        el("a", { class: "button", href: "#/", text: "All stories" }))));
  }
}

window.addEventListener("hashchange", show);
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => event.preventDefault());
window.addEventListener("unhandledrejection", (event) => showError(event.reason));
show();
