// The facts of a page: the author's notes on who is there, where and when. The model does not read them.
import { ask, el, field } from "./dom.js";

const KNOWN = [["who", "Who"], ["place", "Where"], ["time", "When"]];

// What the facts say of a picture, for those who cannot see it.
export function describeFacts(facts) {
  return KNOWN.filter(([name]) => facts[name]).map(([name, word]) => `${word}: ${facts[name].replace(/[ .]+$/, "")}.`).join(" ");
}

export function factsLine(facts) {
  const words = new Map(KNOWN);
  const order = [...KNOWN.map(([name]) => name).filter((name) => facts[name]),
    ...Object.keys(facts).filter((name) => !words.has(name))];
  return order.map((name) => `${words.get(name) ?? name}: ${facts[name]}`).join(" · ");
}

function factsOf(text) {
  const facts = {};
  for (const line of text.split("\n").map((one) => one.trim()).filter(Boolean)) {
    const at = line.indexOf(":");
    if (at < 1 || !line.slice(at + 1).trim()) throw new Error(`Write a note as "mood: glad", not "${line.slice(0, 60)}".`);
    facts[line.slice(0, at).trim().toLowerCase()] = line.slice(at + 1).trim();
  }
  return facts;
}

// Asks for the facts of a page; resolves to those that change (an empty one goes), or null.
export async function askFacts(page) {
  const { facts } = page;
  const inputs = KNOWN.map(([name, word]) => field(word, el("input", { name: `fact-${name}`, value: facts[name] ?? "",
    maxLength: 200, dir: "auto", autocomplete: "off" })));
  const others = Object.entries(facts).filter(([name]) => !KNOWN.some(([known]) => known === name));
  const more = el("textarea", { name: "more", rows: 2, dir: "auto", value: others.map((one) => one.join(": ")).join("\n") });
  const values = await ask({
    title: `Page ${page.number}: who, where, when`, confirm: "Keep",
    body: [el("p", { class: "soft", text: "Your notes. Descriptions of the picture say them; the model does not read them." }),
      ...inputs, field("More notes", more, "A line for each: name, colon, note.")],
    check: (given) => factsOf(given.more),
  });
  if (!values) return null;
  const wanted = factsOf(values.more);
  for (const [name] of KNOWN) wanted[name] = values[`fact-${name}`].trim();
  for (const name of Object.keys(facts)) wanted[name] ??= "";
  return Object.fromEntries(Object.entries(wanted).filter(([name, text]) => text !== (facts[name] ?? "")));
}
