// The storyboard: a card for each page, changed in place, so that the focus stays where it is.
import { Card } from "./card.js";
import { el } from "./dom.js";

export class Board {
  constructor(view) {
    this.view = view;
    this.cards = new Map();
    this.list = el("ol", { class: "cards" });
    this.element = el("section", { "aria-labelledby": "pages" }, el("h2", { id: "pages", class: "unseen", text: "Pages" }), this.list);
  }

  update() {
    const { story, drafts, isUnderWay } = this.view;
    const wanted = story.pages.map((page) => ({ key: `page-${page.id}`, page, number: page.number, draft: drafts.get(page.number) }));
    const begun = wanted.length;
    const numbers = [...drafts.keys()].filter((number) => number > begun).sort((a, b) => a - b);
    const anew = story.pages.some((page) => page.pending);
    if (isUnderWay && !numbers.length && begun < story.pages_total && !anew) numbers.push(begun + 1);
    for (const number of numbers) wanted.push({ key: `draft-${number}`, page: null, number, draft: drafts.get(number) });
    const cards = new Map();
    for (const one of wanted) {
      // A page that has just come takes the card on which it was written.
      const card = this.cards.get(one.key) ?? this.cards.get(`draft-${one.number}`) ?? new Card(this.view);
      cards.set(one.key, card);
      card.update(one);
    }
    const kept = new Set(cards.values());
    for (const card of this.cards.values()) if (!kept.has(card)) card.element.remove();
    this.cards = cards;
    [...kept].forEach((card, index) => {
      const there = this.list.children[index];
      if (there !== card.element) this.list.insertBefore(card.element, there ?? null);
    });
  }

  show(number) {
    this.list.children[number - 1]?.scrollIntoView({ block: "center" });
  }
}
