// A page on the storyboard, and what can be done to it.
import { post } from "./api.js";
import { ask, button, choice, el, field, FOLLOWING } from "./dom.js";
import { askFacts, describeFacts, factsLine } from "./facts.js";
import { Sketch } from "./sketch.js";

export class Card {
  constructor(view) {
    this.view = view;
    this.image = el("img", { class: "picture", hidden: true });
    this.sketch = new Sketch();
    const settle = (sharp) => {
      this.image.classList.toggle("sharp", sharp);
      this.image.hidden = !sharp;
      this.sketch.clear();
    };
    this.image.addEventListener("load", () => settle(true));
    this.image.addEventListener("error", () => settle(false));
    this.stage = el("span", { class: "stage" });
    this.steps = el("progress", { hidden: true, "aria-label": "Steps of the picture" });
    this.frame = el("div", { class: "frame" }, this.image, this.sketch.element, el("div", { class: "making" }, this.stage, this.steps));
    this.number = el("h3");
    this.badge = el("span", { class: "badge", hidden: true });
    this.caption = el("p", { class: "caption", dir: "auto" });
    this.facts = el("p", { class: "facts soft", dir: "auto", hidden: true });
    this.again = button("Try again", () => this.redo());
    this.edit = button("Edit words", () => this.editWords());
    this.insert = button("Insert after", () => this.insertAfter());
    this.more = button("More", () => this.showMore());
    this.tools = el("div", { class: "tools", role: "group" }, this.again, this.edit, this.insert, this.more);
    this.element = el("li", { class: "card" }, this.frame,
      el("div", { class: "line" }, this.number, this.badge), this.caption, this.facts, this.tools);
  }

  update({ page, number, draft }) {
    const { story, isUnderWay } = this.view;
    this.page = page;
    const painting = draft?.steps !== undefined;
    const making = !!draft || (isUnderWay && !page);
    const source = page?.image ?? "";
    if ((this.image.getAttribute("src") ?? "") !== source) {
      this.image.classList.remove("sharp");
      if (source) this.image.src = source;
      else this.image.removeAttribute("src");
    }
    const facts = page?.facts ?? {};
    const shown = describeFacts(facts);
    this.image.alt = page?.alt || (shown ? `Picture of page ${number}. ${shown}` : `Picture of page ${number}`);
    if (draft?.preview) this.sketch.show(draft.preview, number, draft.step / draft.steps);
    else if (!source || this.image.classList.contains("sharp")) this.sketch.clear();
    this.image.hidden = !source || this.sketch.isShown; // a draft gives way once the picture is loaded
    const notes = factsLine(facts);
    if (this.facts.textContent !== notes) this.facts.textContent = notes;
    this.facts.hidden = !notes;
    this.frame.classList.toggle("busy", making);
    this.frame.classList.toggle("bare", !source);
    this.stage.textContent = painting ? "Painting …" : draft ? "Writing …" : making ? "Comes next" : source ? "" : "No picture yet";
    this.steps.hidden = !painting;
    this.steps.max = Math.max(1, draft?.steps ?? 1);
    this.steps.value = draft?.step ?? 0;
    this.number.textContent = `Page ${number}`;
    const marks = [page?.locked && "locked", page?.pending && !draft && "to be made anew"].filter(Boolean);
    this.badge.textContent = marks.join(", ");
    this.badge.hidden = !marks.length;
    const words = draft?.text ?? (page?.pending?.caption || page?.caption) ?? "";
    if (this.caption.textContent !== words) this.caption.textContent = words;
    this.caption.classList.toggle("growing", !!draft && !painting);
    this.caption.lang = story.language || "en";
    this.tools.hidden = !page;
    this.tools.setAttribute("aria-label", `Page ${number}`);
    if (page) {
      const given = number === 1 && !!story.settings.image_name;
      this.again.hidden = given;
      this.again.disabled = this.edit.disabled = page.locked;
    }
  }

  change(verb, body) {
    return this.view.change(this.page, verb, body);
  }

  following() {
    const last = this.page.number >= this.view.story.pages.length;
    return last ? null : choice("The pages after it", "following", FOLLOWING);
  }

  async redo() {
    const what = choice("What is made anew", "what", [
      ["both", "New words and a new picture"],
      ["picture", "A new picture", "The words stay."],
    ]);
    // The words of page 1 are the author's own.
    const body = [this.page.number === 1 ? null : what, this.following()];
    const values = await ask({ title: `Page ${this.page.number}: try again`, body: body.filter(Boolean), confirm: "Make it anew" });
    if (!values) return;
    const keep = values.what !== "both";
    await this.change("redo", { keep_caption: keep, following: values.following ?? "keep" });
  }

  async editWords() {
    const words = el("textarea", { name: "caption", rows: 6, required: true, dir: "auto",
      value: this.page.pending?.caption || this.page.caption });
    const draw = el("label", { class: "check" },
      el("input", { type: "checkbox", name: "redraw", checked: true }), "Draw a new picture for them");
    const given = this.page.number === 1 && this.view.story.settings.image_name;
    const body = [field("Words", words), given ? null : draw, this.following()].filter(Boolean);
    const values = await ask({ title: `Page ${this.page.number}: edit the words`, body, confirm: "Keep the words" });
    if (!values) return;
    await this.change("edit", {
      caption: values.caption, redraw: values.redraw === "on", following: values.following ?? "keep",
    });
  }

  async insertAfter() {
    const words = el("textarea", { name: "caption", rows: 4, dir: "auto" });
    const values = await ask({
      title: `A new page after page ${this.page.number}`, confirm: "Insert the page",
      body: [field("Words", words, "Left empty, the page is written to fit in."),
        el("p", { class: "soft", text: "The other pages stay as they are." })],
    });
    if (values) await this.change("insert", { caption: values.caption.trim() || null });
  }

  async showMore() {
    const { page, view } = this;
    const { number } = page;
    const last = view.story.pages.length;
    let wanted = null;
    const item = (text, run, disabled = false) => button(text, (event) => {
      wanted = run;
      event.target.closest("dialog").close();
    }, { disabled });
    await ask({
      title: `Page ${number}`, confirm: "", cancel: "Close",
      body: [el("div", { class: "menu" },
        item("Move earlier", () => this.change("move", { to: number - 1 }), number <= 2),
        item("Move later", () => this.change("move", { to: number + 1 }), number === 1 || number >= last),
        item(page.locked ? "Unlock" : "Lock: keep it as it is", () => this.change("lock", { locked: !page.locked })),
        item("Describe the picture", () => this.describe()),
        item("Who, where, when", () => this.noteFacts()),
        item("Go on anew after this page", () => this.goOnAnew()),
        item("Branch after this page", () => view.branch(number)),
        item("Remove the page", () => this.change("remove"), number === 1 || page.locked))],
    });
    if (wanted) await wanted();
    if (this.element.isConnected) this.more.focus();
  }

  async describe() {
    const alt = el("textarea", { name: "alt", rows: 3, value: this.page.alt, dir: "auto" });
    const values = await ask({
      title: `Page ${this.page.number}: what the picture shows`, confirm: "Keep",
      body: [field("Description", alt, "For readers who cannot see the picture.")],
    });
    if (values) await this.change("describe", { alt: values.alt.trim() });
  }

  async noteFacts() {
    const facts = await askFacts(this.page);
    if (facts && Object.keys(facts).length) await this.change("facts", { facts });
  }

  async goOnAnew() {
    const { view, page } = this;
    const values = await ask({
      title: `Go on anew after page ${page.number}`, confirm: "Write them anew",
      body: [el("p", { text: "All later pages are written and drawn anew. Locked ones stay. Undo brings the old ones back." })],
    });
    if (values) await view.act(() => post(view.path("/continue"), { after: page.id }));
  }
}
