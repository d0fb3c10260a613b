// Two or more images: asked in turns, shown in a table, saved, and compared.

import { askImages, info } from "./api.js";
import { answer, confidence, picture, release } from "./answers.js";
import { PromptBox, chipRows, phrasesOf } from "./chips.js";
import { button, byId, copyButton, hidden, make, problemText, save, saveTable, setStatus, showProblem } from "./dom.js";
import { prepared, thumbnail } from "./pictures.js";

const IMAGES_A_TURN = 8;
const PAGE_ROWS = 50; // rows, pictures and object URLs that exist at once
const THUMB_SIDE = 128;

const HOW = { exact: "in the file", carried: "in the file, not exact", estimated: "estimated", searched: "searched" };
const COLUMNS = ["image", "prompt", "how", "confidence", "close", "negative", "tool", "error"];

// Of each image only what the table says is kept; a row that is opened is asked for again.
function summary(result) {
  if (result.error) return { error: result.error.detail };
  const { prompt, how, confidence: chance, close, negative, tool, settings, infotext } = result;
  return { prompt, how, confidence: chance, close, negative, tool, settings, infotext };
}

export class Batch {
  // `options` are those of the form, `ask(file)` gives the two functions that an answer needs.
  constructor(files, { options, ask }) {
    this.items = files.map((file) => ({ file, name: file.name || "pasted image", result: null }));
    this.options = options;
    this.ask = ask;
    this.next = 0;
    this.first = 0; // of the rows that are shown
    this.chosen = []; // the rows to compare
    this.pictures = new Map();
    this.body = make("tbody");
    this.pager = make("div", { class: "pager" });
    this.comparison = make("section", { class: "comparison", "aria-label": "Comparison", hidden: true });
    this.compareButton = button("Compare", () => this.compare(), { disabled: true });
    const head = ["Compare", "Image", "Prompt", "How", "Confidence", "Copy"];
    const caption = make("caption", {}, hidden("The images and their prompts"));
    const table = make(
      "table",
      { class: "batch" },
      caption,
      make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
      this.body,
    );
    const actions = make(
      "div",
      { class: "actions" },
      button("CSV", () => this.saveCsv(), { description: "Save all prompts as CSV" }),
      button("JSON lines", () => this.saveJsonLines(), { description: "Save all results as JSON lines" }),
      button("ZIP of .txt", () => this.saveZip(), { description: "Save a ZIP with a text file for each image" }),
      this.compareButton,
    );
    this.node = make("div", { class: "answer table" }, actions, this.comparison, table, this.pager);
    this.showPage(0);
  }

  get answered() {
    return this.items.filter(({ result }) => result && !result.error).length;
  }

  get finished() {
    return this.next >= this.items.length;
  }

  // Ask for all images that have no answer yet. Nothing is lost: what a failure or a cancel leaves
  // is asked for by the next call.
  async run(signal) {
    const bar = byId("progress-bar");
    bar.max = this.items.length;
    bar.hidden = false;
    try {
      while (!this.finished) {
        bar.value = this.next;
        setStatus(`${this.next.toLocaleString("en")} of ${this.items.length.toLocaleString("en")} images`, { busy: true });
        await this.turn(signal);
      }
    } finally {
      bar.hidden = true;
    }
  }

  async turn(signal) {
    const turn = [];
    let bytes = 0;
    const most = Math.min(IMAGES_A_TURN, info.limits.max_images);
    while (turn.length < most && this.next + turn.length < this.items.length) {
      const item = this.items[this.next + turn.length];
      const ready = await prepared(item.file).catch((error) => ({ error }));
      signal.throwIfAborted();
      bytes += ready.file?.size ?? 0;
      if (turn.length && bytes > info.limits.max_body_bytes * 0.9) break;
      turn.push({ item, ...ready });
    }
    const sent = turn.filter(({ file }) => file);
    const answered = sent.length ? await this.results(sent, signal) : [];
    const results = turn.map(({ error }) => (error ? { error } : answered.shift()));
    turn.forEach(({ item, note }, place) => {
      item.result = summary(results[place]);
      item.note = note;
      this.update(this.next + place);
    });
    this.next += turn.length;
  }

  // If all images of a request fail, the response has one error: then each is asked for alone.
  async results(turn, signal) {
    try {
      return await askImages(turn.map(({ file }) => file), { ...this.options, k: 1 }, signal);
    } catch (problem) {
      const isAboutImages = problem.status >= 400 && problem.status < 500 && problem.status !== 401;
      if (!isAboutImages) throw problem;
      if (turn.length === 1) return [{ error: problem }];
      const results = [];
      for (const each of turn) results.push(...(await this.results([each], signal)));
      return results;
    }
  }

  // ---- the table

  showPage(first) {
    this.first = first;
    for (const url of this.pictures.values()) URL.revokeObjectURL(url);
    this.pictures.clear();
    this.rows = this.items.slice(first, first + PAGE_ROWS).map((_, place) => this.row(first + place));
    release(this.body);
    this.body.append(...this.rows);
    this.showPager();
    this.draw();
  }

  showPager() {
    const last = Math.min(this.first + PAGE_ROWS, this.items.length);
    if (this.items.length <= PAGE_ROWS) return;
    const turn = (label, first, off) =>
      button(label, () => this.showPage(first), { kind: "small", disabled: off });
    this.pager.replaceChildren(
      turn("Previous", this.first - PAGE_ROWS, this.first === 0),
      make("span", {}, `${this.first + 1} to ${last} of ${this.items.length.toLocaleString("en")}`),
      turn("Next", this.first + PAGE_ROWS, last === this.items.length),
    );
  }

  // Draws the pictures of the page one after another, until another page is shown.
  async draw() {
    const { first } = this;
    for (const [place, row] of this.rows.entries()) {
      const { file } = this.items[first + place];
      const small = await thumbnail(file, THUMB_SIDE).catch(() => null);
      if (this.first !== first || this.gone) return;
      if (small) {
        const url = URL.createObjectURL(small);
        this.pictures.set(place, url);
        row.querySelector(".thumb").replaceChildren(make("img", { src: url, alt: "" }));
      }
    }
  }

  row(position) {
    const { name } = this.items[position];
    const box = make("input", { type: "checkbox", "aria-label": `Compare ${name}`, disabled: true });
    box.checked = this.chosen.includes(position);
    box.addEventListener("change", () => this.choose(position, box.checked));
    const cells = [
      make("td", { class: "pick" }, box),
      make("td", { class: "image" }, make("span", { class: "thumb" }), make("span", { class: "name" }, name)),
      make("td", { class: "said" }), make("td", { class: "how" }), make("td", { class: "chance" }),
      make("td", { class: "do" }),
    ];
    const row = make("tr", {}, ...cells);
    this.fill(row, position);
    return row;
  }

  update(position) {
    const row = this.rows[position - this.first];
    if (row) this.fill(row, position);
  }

  fill(row, position) {
    const { name, result, note } = this.items[position];
    const [said, how, chance, copy] = [...row.children].slice(2);
    if (!result) {
      said.textContent = "…";
      return;
    }
    if (result.error) {
      said.replaceChildren(make("span", { class: "failed" }, result.error));
      return;
    }
    row.querySelector("input").disabled = false;
    const open = make(
      "button", { type: "button", class: "open", "aria-expanded": "false" },
      result.prompt || "Nearest prompts", hidden(`, open the answer of ${name}`),
    );
    open.addEventListener("click", () => this.toggle(row, position, open));
    said.replaceChildren(open, note ? make("p", { class: "fine" }, note) : "");
    how.textContent = HOW[result.how];
    const isKnown = typeof result.confidence === "number";
    chance.textContent = isKnown ? `${Math.round(100 * result.confidence)} %` : "";
    if (result.close === false) chance.append(make("span", { class: "word far" }, "nothing close"));
    if (result.prompt) {
      copy.replaceChildren(copyButton(result.prompt, "Copy", { kind: "small", description: `Copy the prompt of ${name}` }));
    }
  }

  // Opens a row's answer below it, or closes it.
  async toggle(row, position, open) {
    const below = row.nextElementSibling;
    if (below?.classList.contains("opened")) {
      release(below);
      below.remove();
      open.setAttribute("aria-expanded", "false");
      return;
    }
    for (const other of this.body.querySelectorAll(".opened")) {
      other.previousElementSibling.querySelector(".open")?.setAttribute("aria-expanded", "false");
      release(other);
      other.remove();
    }
    open.setAttribute("aria-expanded", "true");
    const cell = make("td", { colspan: 6 }, make("p", { class: "waiting" }, "Searching…"));
    row.after(make("tr", { class: "opened" }, cell));
    const { file } = this.items[position];
    try {
      const { file: sent } = await prepared(file);
      const [result] = await askImages([sent], { ...this.options, explain: true });
      if (result.error) throw result.error;
      cell.replaceChildren(answer(result, { file, ask: this.ask(file) }));
    } catch (problem) {
      cell.replaceChildren(problemText(problem));
    }
  }

  close() {
    this.gone = true;
    for (const url of this.pictures.values()) URL.revokeObjectURL(url);
    release(this.comparison);
  }

  // ---- two of them side by side

  choose(position, isChosen) {
    this.chosen = this.chosen.filter((other) => other !== position);
    if (isChosen) this.chosen.push(position);
    if (this.chosen.length > 2) {
      const dropped = this.chosen.shift();
      const row = this.rows[dropped - this.first];
      if (row) row.querySelector("input").checked = false;
    }
    this.compareButton.disabled = this.chosen.length !== 2;
  }

  async compare() {
    const files = this.chosen.map((position) => this.items[position]);
    release(this.comparison);
    this.comparison.hidden = false;
    this.comparison.append(make("p", { class: "waiting" }, "Searching…"));
    try {
      const sent = await Promise.all(files.map(async ({ file }) => (await prepared(file)).file));
      // Phrases come with an estimate, also where the prompt is in the file.
      const estimates = await askImages(sent, { ...this.options, k: 1, ignore: true });
      const failed = estimates.find(({ error }) => error);
      if (failed) throw failed.error;
      const texts = estimates.map((result) =>
        new Set([...phrasesOf(result), ...(result.tags ?? [])].map(({ text }) => text)));
      const both = new Set([...texts[0]].filter((text) => texts[1].has(text)));
      const sides = files.map((item, place) => this.side(item, estimates[place], both));
      const shared = make("p", { class: "fine" }, `Phrases that both have are marked: ${both.size}.`);
      const close = button("Close", () => {
        release(this.comparison);
        this.comparison.hidden = true;
        this.compareButton.focus();
      }, { kind: "small", description: "Close the comparison" });
      this.comparison.replaceChildren(
        make("div", { class: "under" }, shared, close), make("div", { class: "sides" }, ...sides),
      );
    } catch (problem) {
      this.comparison.replaceChildren(problemText(problem));
    }
  }

  side(item, estimate, both) {
    const { result, file, name } = item;
    const box = new PromptBox(`compared-${this.items.indexOf(item)}`, result.close === false ? "" : result.prompt);
    const how = result.how === "estimated" ? confidence(result) : HOW[result.how];
    return make(
      "div",
      { class: "side" },
      make("h2", { class: "hidden-text" }, name),
      picture(file),
      make("p", { class: "how" }, how),
      box.node,
      chipRows(estimate, box, both),
    );
  }

  // ---- saving

  done() {
    return this.items.filter(({ result }) => result).map(({ name, result }) => ({ image: name, ...result }));
  }

  saveCsv() {
    saveTable(COLUMNS, this.done(), "imprompt.csv");
  }

  saveJsonLines() {
    const lines = this.done().map((row) => `${JSON.stringify(row)}\n`);
    save(lines, "imprompt.jsonl", "application/jsonl");
  }

  // A text file for each image, as `query --txt` writes it: the prompt alone, in one line.
  async saveZip() {
    const { strToU8, zipSync } = await import("./fflate.js");
    const files = new Map();
    const twice = [];
    for (const { image, prompt } of this.done()) {
      if (!prompt) continue;
      const name = `${image.replace(/\.[^.]*$/, "") || image}.txt`;
      if (files.has(name)) twice.push(image);
      else files.set(name, strToU8(`${prompt.replace(/[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+/g, " ").trim()}\n`));
    }
    save([zipSync(Object.fromEntries(files))], "imprompt.zip", "application/zip");
    if (twice.length) {
      showProblem({
        detail: `${twice.length} of the images have the name of another one and no text file: ${twice.slice(0, 3).join(", ")}.`,
        hint: "Give each image a name of its own.",
      });
    }
  }
}
