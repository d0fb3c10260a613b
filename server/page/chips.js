// The editable prompt, and chips: phrases that a click puts into it or takes out again.

import { button, copyButton, hidden, make } from "./dom.js";

const ROLES = {
  subject: "Subject", medium: "Medium", style: "Style", artist: "Artist", light: "Light",
  composition: "Composition", colour: "Colour", quality: "Quality",
};

const parts = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);
const same = (one, other) => one.toLowerCase() === other.toLowerCase();

export class PromptBox {
  constructor(id, prompt = "") {
    this.area = make("textarea", { id, rows: 2, spellcheck: "false" });
    this.area.placeholder = "Choose phrases below, or write";
    this.area.addEventListener("input", () => this.changed());
    this.watchers = [];
    const row = make(
      "div",
      { class: "actions" },
      copyButton(() => this.area.value, "Copy prompt", { kind: "main" }),
      button("Clear", () => this.set("")),
    );
    const label = make("label", { for: id }, "Your prompt");
    this.node = make("div", { class: "prompt-box" }, label, this.area, row);
    this.actions = row;
    this.area.value = prompt;
    // Fits when it is shown, and when its width changes with the window.
    new ResizeObserver(() => requestAnimationFrame(() => this.fit())).observe(label);
  }

  set(text) {
    this.area.value = text;
    this.changed();
  }

  holds(phrase) {
    return parts(this.area.value).some((part) => same(part, phrase));
  }

  toggle(phrase) {
    const said = parts(this.area.value);
    const others = said.filter((part) => !same(part, phrase));
    this.set((others.length < said.length ? others : [...said, phrase]).join(", "));
  }

  watch(changed) {
    this.watchers.push(changed);
    changed();
  }

  changed() {
    this.fit();
    for (const changed of this.watchers) changed();
  }

  // The box is as high as its text.
  fit() {
    this.area.style.height = "auto";
    if (this.area.scrollHeight) this.area.style.height = `${this.area.scrollHeight + 2}px`;
  }
}

// The phrases of an answer: those of its prompt, and others that its nearest prompts share.
export function phrasesOf({ phrases = [], shared = [], close }) {
  const used = close === false ? [] : phrases;
  return [...used, ...shared.filter(({ text }) => !used.some((other) => same(other.text, text)))];
}

// `marked` holds the phrases that another picture's chips have too.
export function chipRows(result, box, marked = null) {
  const all = phrasesOf(result);
  const rows = Object.entries(ROLES).map(([role, title]) => {
    const phrases = all.filter((phrase) => phrase.role === role);
    return row(title, phrases.map(({ text, support }) =>
      chip(text, support ? String(support) : "", meaning(support), box, marked)));
  });
  const { tags } = result;
  const seen = (tags ?? []).map(({ text, probability }) => {
    const percent = `${Math.round(probability * 100)} %`;
    return chip(text, percent, `${percent} likely to be in the prompt`, box, marked);
  });
  return make("div", { class: "chips" }, row("Seen in the image", seen), ...rows);
}

function meaning(support) {
  if (!support) return "seen in the image";
  return support === 1 ? "in 1 of the nearest prompts" : `in ${support} of the nearest prompts`;
}

function row(title, chips) {
  if (!chips.length) return "";
  const items = chips.map((node) => make("li", {}, node));
  return make("div", { class: "chip-row" }, make("h3", {}, title), make("ul", {}, ...items));
}

function chip(text, figure, explained, box, marked) {
  const node = make(
    "button",
    { type: "button", class: "chip", title: explained },
    text,
    figure ? make("span", { class: "n", "aria-hidden": "true" }, figure) : "",
    hidden(`, ${explained}`),
  );
  if (marked?.has(text)) {
    node.classList.add("both");
    node.append(hidden(", in both"));
  }
  node.addEventListener("click", () => box.toggle(text));
  box.watch(() => node.setAttribute("aria-pressed", String(box.holds(text))));
  return node;
}
