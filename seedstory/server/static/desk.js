// The desk: the opening of a new story, and the library below it.
import { get, post } from "./api.js";
import { button, clearError, el, field, say, showError } from "./dom.js";
import { castOf, lines } from "./state.js";

const MAX_SEED = 2 ** 31 - 1;
const REFRESH = 4000; // milliseconds

const paragraphs = (text) => text.split(/\n\s*\n/).map((one) => one.trim().replace(/\s+/g, " ")).filter(Boolean);

export class Desk {
  constructor(info) {
    this.info = info;
    this.title = "Your stories";
    this.image = null;
    this.shelf = el("div");
    this.element = el("div", {}, this.makeForm(), el("section", { class: "library", "aria-labelledby": "library" },
      el("h2", { id: "library", text: "Your stories" }), this.shelf));
    this.onPaste = (event) => {
      const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
      if (file) this.setImage(file);
    };
    document.addEventListener("paste", this.onPaste);
  }

  async open() {
    await this.refresh();
    this.timer = setInterval(() => this.anyUnderWay && !document.hidden && this.refresh().catch(() => {}), REFRESH);
  }

  close() {
    clearInterval(this.timer);
    document.removeEventListener("paste", this.onPaste);
    this.setImage(null);
  }

  makeForm() {
    const control = (tag, name, props = {}) => el(tag, { name, autocomplete: "off", ...props });
    this.text = control("textarea", "text", { rows: 5, placeholder: "For example: Mia the fox found a golden key under the old oak." });
    this.pages = control("input", "pages", { type: "number", min: 1, max: this.info.max_pages, value: 10, required: true });
    this.storyTitle = control("input", "title", { maxLength: 200 });
    this.seed = control("input", "seed", { type: "number", min: 0, max: MAX_SEED });
    this.script = control("textarea", "script", { rows: 4 });
    this.cast = control("textarea", "cast", { rows: 3, placeholder: "Mia: fox, red coat" });
    this.plan = control("textarea", "plan", { rows: 3 });
    this.submit = el("button", { type: "submit", class: "primary big", text: "Begin the story" });
    const states = this.info.story_state;
    const form = el("form", { class: "desk leaf", onsubmit: (event) => this.begin(event) },
      el("h1", { text: "How does your story begin?" }),
      el("div", { class: "opening" },
        field("Opening words", this.text, "A sentence or two, a picture, or both."),
        this.makeDrop()),
      el("div", { class: "row bottom" }, field("Pages", this.pages), this.submit),
      el("details", {}, el("summary", { text: states ? "Title, seed, cast, plan and own script" : "Title, seed and own script" }),
        el("div", { class: "two" },
          field("Title", this.storyTitle, "Left empty, it comes from the opening."),
          field("Seed", this.seed, "The same seed gives the same story. Left empty, each is new."),
          states ? field("Cast", this.cast, "A line for each: name, colon, look.") : null,
          states ? field("Plan", this.plan, "A line for each page from page 2: what happens there.") : null),
        field("Your own script", this.script,
          "Paragraphs with an empty line between them: each becomes a page after the opening, in your words.")));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    return form;
  }

  makeDrop() {
    this.file = el("input", { type: "file", id: "picture", accept: "image/*", class: "over" });
    this.file.addEventListener("change", () => this.setImage(this.file.files[0] ?? null));
    this.preview = el("img", { alt: "The picture of page 1", hidden: true });
    this.prompt = el("span", { class: "prompt", text: "Drop a picture here, or choose one" });
    this.drop = el("label", { class: "drop", htmlFor: "picture" }, this.file, this.preview, this.prompt);
    this.drop.addEventListener("dragover", () => this.drop.classList.add("over"));
    this.drop.addEventListener("dragleave", () => this.drop.classList.remove("over"));
    this.drop.addEventListener("drop", (event) => {
      this.drop.classList.remove("over");
      if (event.dataTransfer.files[0]) this.setImage(event.dataTransfer.files[0]);
    });
    this.clear = button("Take the picture away", () => {
      this.setImage(null);
      this.file.focus();
    }, { class: "quiet", hidden: true });
    return el("div", { class: "field" }, el("span", { class: "label", text: "Opening picture" }), this.drop, this.clear);
  }

  setImage(file) {
    clearError();
    if (file && !file.type.startsWith("image/")) {
      showError(`${file.name} is no picture.`);
      file = null;
    } else if (file && file.size > this.info.max_body) {
      showError(`${file.name} is too large: at most ${Math.floor(this.info.max_body / 2 ** 20)} MB.`);
      file = null;
    }
    if (this.image && this.preview.src) URL.revokeObjectURL(this.preview.src);
    this.image = file;
    this.preview.hidden = this.clear.hidden = !file;
    this.prompt.hidden = !!file;
    if (file) this.preview.src = URL.createObjectURL(file);
    else {
      this.preview.removeAttribute("src");
      this.file.value = "";
    }
  }

  asked() {
    const body = { pages: Number(this.pages.value) };
    let text = this.text.value.trim();
    const script = paragraphs(this.script.value);
    if (!text && !this.image && script.length) text = script.shift();
    if (!text && !this.image) throw new Error("Write how the story begins, or give its first picture.");
    if (text) body.text = text;
    if (script.length) Object.assign(body, { captions: script, pages: script.length + 1 });
    if (this.storyTitle.value.trim()) body.title = this.storyTitle.value.trim();
    body.seed = this.seed.value === "" ? Math.floor(Math.random() * MAX_SEED) : Number(this.seed.value);
    const cast = castOf(this.cast.value);
    const plan = lines(this.plan.value);
    if (cast) body.cast = cast;
    if (plan.length) body.plan = plan;
    return body;
  }

  async begin(event) {
    event.preventDefault();
    clearError();
    this.submit.disabled = true;
    say("The story is begun …");
    try {
      let body = this.asked();
      if (this.image) {
        const form = new FormData();
        form.append("story", JSON.stringify(body));
        form.append("image", this.image);
        body = form;
      }
      const story = await post("/api/stories", body);
      location.hash = `#/story/${story.id}`;
    } catch (error) {
      say("");
      showError(error);
      this.submit.disabled = false;
    }
  }

  async refresh() {
    const { stories } = await get("/api/stories?limit=200");
    this.anyUnderWay = stories.some((one) => one.state === "running" || one.state === "waiting");
    const seen = JSON.stringify(stories);
    if (seen === this.seen) return;
    this.seen = seen;
    const focused = this.shelf.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    this.shelf.replaceChildren(stories.length
      ? el("ul", { class: "shelf" }, ...stories.map(book))
      : el("p", { class: "soft", text: "None yet. The first one will stand here." }));
    if (focused) this.shelf.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }
}

const STATES = { waiting: "waiting", running: "being made", stopped: "stopped", failed: "failed" };

function book(story) {
  const whole = story.pages_done >= story.pages_total;
  const pages = story.pages_total === 1 ? "1 page" : `${story.pages_total} pages`;
  const count = whole ? pages : `${story.pages_done} of ${pages}`;
  const note = STATES[story.state] ? `${count}, ${STATES[story.state]}` : count;
  const cover = story.cover ? el("img", { src: story.cover, alt: "", loading: "lazy" }) : el("span", { class: "blank" });
  return el("li", {}, el("a", { href: `#/story/${story.id}` }, cover,
    el("strong", { text: story.title, dir: "auto", lang: story.language || undefined }),
    el("span", { class: "soft", text: note }),
    whole ? null : el("progress", { max: story.pages_total, value: story.pages_done, "aria-label": "Pages made" })));
}
