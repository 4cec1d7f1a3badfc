// The draft of a picture while it is drawn: it gets sharper step by step, and gives way to the picture.
import { el } from "./dom.js";

const BLUR = 14; // pixels, before the first step
const CALM = 1000; // milliseconds between two drafts for those who want little motion
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

// The page may show blobs, but no data URLs.
function blobOf(url) {
  const [head, data] = url.split(",", 2);
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  return new Blob([bytes], { type: head.slice("data:".length, head.indexOf(";")) });
}

export class Sketch {
  constructor() {
    this.element = el("img", { class: "sketch", hidden: true, alt: "" });
  }

  get isShown() {
    return !this.element.hidden;
  }

  // Shows a draft (a data URL) of which a share of the steps is done.
  show(url, number, done) {
    if (url === this.url || (calm.matches && this.isShown && performance.now() - this.shownAt < CALM)) return;
    this.clear();
    this.url = url;
    this.shownAt = performance.now();
    this.address = URL.createObjectURL(blobOf(url));
    this.element.src = this.address;
    this.element.alt = `Draft of the picture of page ${number}, still being painted`;
    this.element.style.filter = `blur(${(BLUR * (1 - done)).toFixed(1)}px)`;
    this.element.hidden = false;
  }

  clear() {
    if (this.address) URL.revokeObjectURL(this.address);
    this.url = this.address = undefined;
    this.element.hidden = true;
    this.element.removeAttribute("src");
  }
}
