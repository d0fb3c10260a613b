// One answer: what the file says or what was estimated, phrases to choose, and the nearest prompts.

import { info } from "./api.js";
import { PromptBox, chipRows } from "./chips.js";
import { button, copyButton, hidden, make, problemText, saveTable, setStatus } from "./dom.js";

const BADGES = {
  exact: "Found in the file", carried: "Found in the file", estimated: "Estimated", searched: "Search",
};
let count = 0; // makes the ids of answers differ

// `ask.guess()` estimates an image whose file has a prompt, `ask.filter(name, phrase)` filters.
export function answer(result, { file = null, ask }) {
  count += 1;
  const id = `answer-${count}`;
  const found = result.how === "exact" || result.how === "carried";
  const box = found ? null : new PromptBox(`prompt-${count}`, composed(result));
  const body = make(
    "div",
    { class: "body" },
    how(result),
    ...(found ? carried(result, id) : heading(result, id)),
    box ? box.node : "",
  );
  if (result.how === "estimated" && result.close === false) {
    box.actions.append(button("Show the best guess", () => box.set(result.prompt)));
  }
  return make(
    "article",
    { class: file ? "answer pictured" : "answer", "aria-labelledby": id },
    make("div", { class: "top" }, body, file ? picture(file) : ""),
    ...(box ? material(result, box) : [guess(ask)]),
    ...neighbours(result, { box, ask, id: `nearest-${count}` }),
  );
}

// What stands in the answer's place until it comes.
export function pending(file) {
  const words = make("div", { class: "body" }, make("p", { class: "waiting" }, "Searching…"));
  const top = make("div", { class: "top" }, words, file ? picture(file) : "");
  return make("article", { class: file ? "answer pictured pending" : "answer pending" }, top);
}

// A picture and its object URL, which `release` gives back.
export function picture(file) {
  const image = make("img", { src: URL.createObjectURL(file), alt: "Your image" });
  const caption = make("figcaption", {}, file.name || "pasted image");
  // The server reads formats that some browsers cannot show.
  image.addEventListener("error", () => image.remove());
  return make("figure", {}, image, caption);
}

export function release(node) {
  for (const image of node.querySelectorAll("img")) {
    if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  }
  node.replaceChildren();
}

export const composed = (result) =>
  result.how === "estimated" && result.close !== false ? result.prompt : "";

// ---- the head

function how(result) {
  const line = make("p", { class: "how" }, make("span", { class: `badge ${result.how}` }, BADGES[result.how]));
  const tool = result.tool || "its tool";
  if (result.how === "exact") line.append(`written by ${tool}`);
  else if (result.how === "carried") line.append(`written by ${tool}, but not exact: ${result.doubt}`);
  else if (result.how === "estimated") line.append(confidence(result));
  else line.append("the nearest prompts");
  if (result.note) line.append(` · ${result.note}`);
  return line;
}

export function confidence({ confidence: value }) {
  if (value === null || value === undefined) return "composed from the nearest prompts";
  return `${Math.round(100 * value)} % likely to be close to the true prompt`;
}

function heading(result, id) {
  if (result.how === "searched") return [make("h2", { class: "subject", id }, `Prompts like “${result.text}”`)];
  if (result.close !== false) return [make("h2", { class: "hidden-text", id }, "An estimated prompt")];
  return [
    make("h2", { class: "nothing", id }, "Nothing here is close to this image."),
    make("p", { class: "fine" }, "Choose phrases, or start from one of the nearest prompts."),
  ];
}

function carried(result, id) {
  const rows = Object.entries(result.settings ?? {}).filter(([, value]) => value);
  const actions = make("div", { class: "actions" }, copyButton(result.prompt, "Copy prompt", { kind: "main" }));
  if (result.negative) actions.append(copyButton(result.negative, "Copy negative prompt"));
  if (result.infotext && (result.negative || rows.length)) {
    actions.append(copyButton(result.infotext, "Copy all"));
  }
  return [
    make("h2", { class: "prompt", id }, result.prompt),
    actions,
    facts([...(result.negative ? [["negative", result.negative]] : []), ...rows]),
  ].filter(Boolean);
}

function facts(rows, kind = "facts") {
  if (!rows.length) return "";
  return make("dl", { class: kind }, ...rows.map(([name, value, support]) =>
    make(
      "div",
      { class: value.length > 60 || name === "negative" ? "wide" : "" },
      make("dt", {}, name.replaceAll("_", " ")),
      make("dd", {}, value),
      support ? make("dd", { class: "support" }, `${support} prompts`) : "",
    )));
}

// ---- what a prompt is made of

function material(result, box) {
  return [chipRows(result, box), ...suggestion(result), ...shares(result)];
}

// The estimate of an image whose file has a prompt: asked for when it is opened.
function guess(ask) {
  const inside = make("div", {});
  const details = make("details", { class: "guess" }, make("summary", {}, "What would we have guessed?"), inside);
  details.addEventListener("toggle", async () => {
    if (!details.open || inside.childElementCount) return;
    inside.append(make("p", { class: "waiting" }, "Searching…"));
    try {
      const result = await ask.guess();
      count += 1;
      const box = new PromptBox(`prompt-${count}`, result.prompt);
      const close = result.close === false ? "Nothing here is close to this image. " : "";
      inside.replaceChildren(
        make("p", { class: "how" }, `${close}${confidence(result)}`), box.node, ...material(result, box),
      );
    } catch (problem) {
      inside.replaceChildren();
      if (problem.name !== "AbortError") inside.append(problemText(problem));
      details.open = false;
    }
  });
  return details;
}

function suggestion({ suggested }) {
  if (!suggested) return [];
  const { negative, settings, n_prompts: total } = suggested;
  const rows = negative ? [["negative", negative.text, negative.support]] : [];
  rows.push(...settings.map(({ name, value, support }) => [name, value, support]));
  return [
    make("h3", {}, `Suggested: the commonest of the ${total} nearest prompts`),
    facts(rows, "facts suggested"),
    negative ? make("div", { class: "actions" }, copyButton(negative.text, "Copy negative prompt")) : "",
  ].filter(Boolean);
}

function shares({ explanation }) {
  if (!explanation) return [];
  const rows = explanation.contributions.map(({ member, share, text }) =>
    make(
      "li",
      {},
      make("span", { class: "who" }, member),
      make(
        "span",
        { class: "gauge" },
        make("span", { class: "bar", "aria-hidden": "true" }, make("span", { fraction: share })),
        `weight ${Math.round(share * 100)} %`,
      ),
      text ? make("span", { class: "predicted" }, `“${text}”`) : "",
    ));
  const missing = explanation.left_out.map(({ member, reason }) =>
    make("li", {}, make("span", { class: "who" }, member), `unavailable: ${reason}`));
  const list = make("ul", { class: "contributions" }, ...rows, ...missing);
  return [make("details", {}, make("summary", {}, "How it was estimated"), list)];
}

// ---- the nearest prompts

function neighbours(result, { box, ask, id }) {
  const title = make("h3", { id }, "Nearest prompts");
  if (!result.nearest.length) {
    return [title, make("p", { class: "fine" }, "No prompt passes the filters.")];
  }
  const hits = result.nearest.map((hit) => neighbour(hit, { box, ask, version: result.version }));
  const list = make("ol", { class: "hits", "aria-labelledby": id }, ...hits);
  const saved = button("Download as CSV", () => saveNeighbours(result), { kind: "small" });
  const searched = `${result.encoder} over ${result.corpus} · ${result.seconds.toFixed(2)} s`;
  return [title, list, make("div", { class: "under" }, make("p", {}, searched), saved)];
}

function neighbour(hit, { box, ask, version }) {
  const more = `and ${hit.n_like.toLocaleString("en")} like it`;
  const source = Object.keys(info.sources).length > 1 ? hit.source : "";
  const brief = hit.shown.slice(0, 60);
  const actions = make(
    "div",
    { class: "do" },
    copyButton(hit.shown, "Copy", { kind: "small", description: `Copy the prompt: ${brief}` }),
  );
  if (box) {
    actions.append(button("Use", () => {
      box.set(hit.shown);
      box.area.focus();
      setStatus("The prompt is in the box.");
    }, { kind: "small", description: `Put the prompt into the box: ${brief}` }));
  }
  return make(
    "li",
    { class: "hit" },
    thumbnail(hit, version),
    make(
      "div",
      { class: "said" },
      make("p", { class: "words" }, hit.shown, hit.n_like ? make("span", { class: "like" }, more) : ""),
      make("p", { class: "meta" }, nearness(hit), source),
      cut(hit, { box, ask }),
    ),
    actions,
  );
}

function nearness({ closeness, score }) {
  const figure = `cosine ${score.toFixed(3)}`;
  if (!closeness) return make("span", { class: "word" }, figure);
  return make("span", { class: `word ${closeness}`, title: figure }, closeness, hidden(`, ${figure}`));
}

function thumbnail({ source, row_id: row, shown }, version) {
  if (!info.pictures.includes(source)) return "";
  const address = `/v1/pictures/${encodeURIComponent(version)}/${row}`;
  const image = make("img", { src: address, alt: "", loading: "lazy", width: 96, height: 96 });
  const link = make(
    "a",
    { class: "thumb", href: `${address}?large=true`, target: "_blank", rel: "noopener",
      "aria-label": `Picture of: ${shown.slice(0, 60)}` },
    image,
  );
  image.addEventListener("error", () => link.remove());
  return link;
}

// The phrases of a prompt: to take one, or to keep only prompts with it or without it.
function cut(hit, { box, ask }) {
  const list = make("ul", { class: "cut" });
  const details = make(
    "details", {}, make("summary", {}, "Phrases", hidden(` of: ${hit.shown.slice(0, 60)}`)), list,
  );
  details.addEventListener("toggle", () => {
    if (list.childElementCount) return;
    const phrases = hit.shown.split(",").map((phrase) => phrase.trim()).filter(Boolean);
    for (const phrase of new Set(phrases)) {
      const item = make("li", {}, make("span", {}, phrase));
      if (box) {
        item.append(button("Add", () => box.toggle(phrase), { kind: "tiny", description: `Add or remove: ${phrase}` }));
      }
      item.append(
        button("Only", () => ask.filter("contains", phrase), { kind: "tiny", description: `Only prompts with: ${phrase}` }),
        button("Without", () => ask.filter("exclude", phrase), { kind: "tiny", description: `Only prompts without: ${phrase}` }),
      );
      list.append(item);
    }
  });
  return details;
}

const COLUMNS = [
  "rank", "score", "closeness", "shown", "prompt", "n_like", "source", "source_key", "prompt_key", "row_id", "version",
];

function saveNeighbours(result) {
  const rows = result.nearest.map((hit, position) => ({ ...hit, rank: position + 1, version: result.version }));
  saveTable(COLUMNS, rows, "imprompt.csv");
}
