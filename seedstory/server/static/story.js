// One story: its head with what can be done to the whole, and its storyboard. It follows the server's events.
import { download, get, post, request, storyPath } from "./api.js";
import { Board } from "./board.js";
import { ask, button, clearError, el, field, say, showError } from "./dom.js";
import { castStrip, changeState } from "./state.js";

const FORMATS = { html: "Web page", pdf: "PDF", epub: "EPUB", cbz: "Comic (CBZ)", mp4: "Film (MP4)",
  vistorybench: "ViStoryBench" };
const RETRY = 4000; // milliseconds
const PATIENCE = 700; // milliseconds until a change says that it waits

export class StoryView {
  constructor(id, info) {
    this.id = id;
    this.info = info;
    this.drafts = new Map(); // number of a page under way: { text, step, steps, preview }
    this.board = new Board(this);
    this.makeHead();
    this.element = el("div", { class: "story" }, this.head, this.cast, this.board.element);
    this.onKey = (event) => this.shortcut(event);
    document.addEventListener("keydown", this.onKey);
  }

  get title() {
    return this.story?.title ?? "Story";
  }

  get isUnderWay() {
    return this.story.state === "running" || this.story.state === "waiting";
  }

  async open() {
    this.setStory(await get(storyPath(this.id)));
    this.watch();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.events?.close();
    document.removeEventListener("keydown", this.onKey);
  }

  // ------------------------------------------------------------------------------------------------------ events

  watch() {
    const on = (kind, handle) => this.events.addEventListener(kind, (event) => {
      if (!this.closed) handle(JSON.parse(event.data));
    });
    this.events?.close();
    this.events = new EventSource(storyPath(this.id, "/events?previews=1"));
    on("story", (story) => this.setStory(story));
    on("state", ({ state, error }) => {
      Object.assign(this.story, { state, error });
      if (!this.isUnderWay) this.drafts.clear();
      this.render();
      if (state === "done") say("The story is done.");
    });
    on("text", ({ number, text }) => this.setDraft(number, { text }));
    on("written", ({ number, text, steps }) => this.setDraft(number, { text, steps, step: 0 }));
    on("step", ({ number, step, steps, preview }) =>
      this.setDraft(number, preview ? { step, steps, preview } : { step, steps }));
    on("page", (page) => this.setPage(page));
    on("removed", () => {
      this.close();
      location.hash = "#/";
    });
    this.events.addEventListener("error", () => {
      // A browser comes back by itself after a broken line, but not after an answer that is no stream.
      if (this.closed || this.events.readyState !== EventSource.CLOSED) return;
      this.timer = setTimeout(() => this.open().catch((error) => {
        if (this.closed) return;
        showError(error);
        if (error.status !== 404) this.watch();
      }), RETRY);
    });
  }

  setStory(story) {
    const moved = this.story?.revision !== story.revision;
    this.story = story;
    if (moved || !this.isUnderWay) this.drafts.clear();
    this.render();
  }

  setDraft(number, values) {
    this.drafts.set(number, { ...this.drafts.get(number), ...values });
    if (this.story.state === "waiting") this.story.state = "running";
    this.renderHead();
    this.board.update();
  }

  setPage(page) {
    const pages = this.story.pages.filter((one) => one.id !== page.id);
    pages.splice(page.number - 1, 0, page);
    this.story.pages = pages;
    this.story.pages_done = pages.filter((one) => one.image && !one.pending).length;
    Object.assign(this.story.cast, page.cast ?? {});
    this.drafts.delete(page.number);
    this.render();
    say(`Page ${page.number} is there.`);
  }

  // ------------------------------------------------------------------------------------------------------ drawing

  makeHead() {
    this.heading = el("h1", { dir: "auto" });
    this.state = el("p", { class: "state" });
    this.progress = el("progress", { "aria-label": "Pages made" });
    this.failure = el("p", { class: "failure" });
    this.stop = button("Stop", () => this.act(() => post(this.path("/cancel"))), { class: "primary" });
    this.resume = button("Go on", () => this.act(() => post(this.path("/resume"))), { class: "primary" });
    this.look = button("Show that page", () => this.board.show([...this.drafts.keys()].at(-1)), { class: "quiet" });
    this.undo = button("Undo", () => this.act(() => post(this.path("/undo"), { forward: false })));
    this.redo = button("Redo", () => this.act(() => post(this.path("/undo"), { forward: true })));
    const exports = this.info.exports.map((form) => button(FORMATS[form] ?? form, (event) => this.save(event, form)));
    this.head = el("section", { class: "head" },
      el("a", { href: "#/", class: "back", text: "All stories" }),
      this.heading, el("div", { class: "row" }, this.state, this.look), this.progress, this.failure,
      el("div", { class: "row" }, this.stop, this.resume, this.undo, this.redo,
        button("More pages", () => this.continue()),
        button("Branch", () => this.branch()),
        button("Title", () => this.rename()),
        button("Cast and plan", () => changeState(this)),
        button("Delete", () => this.remove(), { class: "quiet" })),
      el("div", { class: "row book", role: "group", "aria-label": "The book" },
        el("span", { class: "label", text: "The book" }),
        el("a", { class: "button", href: this.path("/export/html?inline=true"), target: "_blank", rel: "noopener", text: "Read" }),
        ...exports));
    this.cast = el("section", { class: "cast", "aria-label": "Cast" });
  }

  path(rest) {
    return storyPath(this.id, rest);
  }

  stateLine() {
    const { state, pages, pages_done: done, pages_total: total } = this.story;
    const anew = pages.filter((one) => one.pending).length;
    const count = `${done} of ${total === 1 ? "1 page" : `${total} pages`}`;
    if (state === "done") return total === 1 ? "1 page, done" : `${total} pages, done`;
    if (state === "waiting") return `${count}; waits for its turn`;
    if (state === "failed") return `${count}; it could not go on`;
    if (state === "stopped") return `${count}; stopped${anew ? `, ${anew} to be made anew` : ""}`;
    const [number, draft] = [...this.drafts].at(-1) ?? [];
    if (!number) return `${count}; begins the next page`;
    return `${count}; ${draft.steps ? "paints" : "writes"} page ${number}`;
  }

  renderHead() {
    const { story } = this;
    this.heading.textContent = story.title;
    this.heading.lang = story.language || "en";
    this.state.textContent = this.stateLine();
    this.progress.max = Math.max(1, story.pages_total);
    this.progress.value = story.pages_done;
    this.progress.hidden = story.state === "done";
    this.failure.textContent = story.state === "failed" ? story.error : "";
    this.failure.hidden = !this.failure.textContent;
    this.swap(this.stop, this.isUnderWay, this.resume);
    this.swap(this.resume, story.state === "stopped" || story.state === "failed", this.stop);
    this.look.hidden = !this.drafts.size;
    this.undo.disabled = !story.can_undo;
    this.redo.disabled = !story.can_redo;
  }

  // Shows or hides a button; whoever had the focus on it finds it on the other one.
  swap(one, shown, other) {
    const had = document.activeElement === one;
    one.hidden = !shown;
    if (had && !shown) {
      other.hidden = false;
      other.focus();
    }
  }

  render() {
    this.renderHead();
    this.cast.hidden = !Object.keys(this.story.cast).length;
    this.cast.replaceChildren(...castStrip(this.story.cast));
    this.board.update();
    document.title = `${this.title} · Seedstory`;
  }

  // ------------------------------------------------------------------------------------------------------ changes

  // Makes a change and shows what it gave; a change of a story under way waits for the page under way.
  async act(change) {
    clearError();
    const timer = setTimeout(() => say(this.isUnderWay ? "Waits for the page under way …" : "One moment …"), PATIENCE);
    try {
      const answer = await change();
      say("");
      if (answer?.id === this.id && !this.closed) this.setStory(answer);
      return answer;
    } catch (error) {
      say("");
      showError(error);
      return null;
    } finally {
      clearTimeout(timer);
    }
  }

  change(page, verb, body) {
    return this.act(() => post(this.path(`/pages/${page.id}/${verb}`), body));
  }

  async save(event, form) {
    const { target } = event;
    target.disabled = true;
    await this.act(() => download(this.path(`/export/${form}`)));
    target.disabled = false;
    target.focus();
  }

  async continue() {
    const total = this.story.pages_total;
    const most = this.info.max_pages;
    const input = el("input", { type: "number", name: "pages", min: total + 1, max: most, required: true,
      value: Math.min(total + 5, most) });
    const values = await ask({
      title: "More pages", body: [field("Pages in all", input, `The story has ${total} now.`)], confirm: "Go on",
    });
    if (values) await this.act(() => post(this.path("/continue"), { pages: Number(values.pages) }));
  }

  async branch(upTo = this.story.pages.length) {
    const most = this.story.pages.length;
    const input = el("input", { type: "number", name: "pages", min: 1, max: most, value: upTo, required: true });
    const values = await ask({
      title: "Branch", confirm: "Make the copy",
      body: [el("p", { text: "A copy that can go another way; this story stays as it is." }),
        field("First pages to copy", input)],
    });
    if (!values) return;
    const story = await this.act(() => post(this.path("/branch"), { pages: Number(values.pages) }));
    if (story) location.hash = `#/story/${story.id}`;
  }

  async rename() {
    const input = el("input", { name: "title", value: this.story.title, required: true, maxLength: 200 });
    const values = await ask({ title: "Title of the story", body: [field("Title", input)], confirm: "Keep" });
    if (values) await this.act(() => request("PATCH", this.path(""), { title: values.title }));
  }

  async remove() {
    const values = await ask({
      title: "Delete this story?", confirm: "Delete for good", cancel: "Keep it", danger: true,
      body: [el("p", { text: `“${this.story.title}” and all its pictures are deleted. This cannot be undone.` })],
    });
    if (!values) return;
    const done = await this.act(async () => {
      await request("DELETE", this.path(""));
      return true;
    });
    if (done && !this.closed) location.hash = "#/";
  }

  shortcut(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || document.querySelector("dialog[open]")) return;
    if (/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
    const key = event.key.toLowerCase();
    const forward = key === "y" || (key === "z" && event.shiftKey);
    const wanted = forward ? this.redo : key === "z" ? this.undo : null;
    if (!wanted || wanted.disabled) return;
    event.preventDefault();
    wanted.click();
  }
}
