// The page calls /v1 of its own server and nothing else. It inserts data as text, never as markup.
"use strict";

const byId = (id) => document.getElementById(id);
const RETRIES = 3;
let info = { members: {}, limits: { max_images: 16, max_k: 100 } };
let lastQuestion = null; // {files} or {text}: what "Search again" repeats
let running = null; // the AbortController of the search in progress

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "fraction") {
      node.style.setProperty("--fraction", String(Math.min(Math.max(value, 0), 1)));
    } else if (value !== false && value !== null) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

const words = (id) => byId(id).value.split(",").map((word) => word.trim()).filter(Boolean);

function filters() {
  const values = {};
  if (byId("where").value.trim()) values.where = byId("where").value.trim();
  if (words("contains").length) values.contains = words("contains");
  if (words("exclude").length) values.exclude = words("exclude");
  if (byId("no-artists").checked) values.no_artists = true;
  return values;
}

function resultCount() {
  const k = Number.parseInt(byId("k").value, 10);
  return Math.min(Math.max(Number.isNaN(k) ? 10 : k, 1), info.limits.max_k);
}

function setStatus(text, { busy = false } = {}) {
  byId("status").textContent = text;
  byId("status").classList.toggle("busy", busy);
}

function clearProblem() {
  byId("problem").replaceChildren();
  byId("problem").hidden = true;
}

function showProblem(problem, name = "") {
  const text = name ? `${name}: ${problem.detail}` : problem.detail;
  const hint = problem.hint ? make("p", { class: "hint" }, problem.hint) : "";
  byId("problem").append(make("p", {}, text), hint);
  byId("problem").hidden = false;
}

// ---- requests

async function post(path, body, signal) {
  for (let attempt = 0; ; attempt += 1) {
    const isForm = body instanceof FormData;
    let response;
    try {
      response = await fetch(path, {
        method: "POST",
        body: isForm ? body : JSON.stringify(body),
        headers: isForm ? {} : { "Content-Type": "application/json" },
        signal,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw { detail: "The server cannot be reached.", hint: "Is it still running?" };
    }
    if (response.status === 503 && attempt < RETRIES) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      setStatus("The server is busy. Retrying…", { busy: true });
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      continue;
    }
    const fallback = { detail: `The server answered with status ${response.status}.` };
    const value = await response.json().catch(() => fallback);
    if (!response.ok) throw value;
    return value;
  }
}

function searchImage(file, signal) {
  const form = new FormData();
  const conditions = filters();
  form.append("image", file, "image"); // the file's name is not sent
  form.append("k", resultCount());
  if (byId("ignore").checked) form.append("ignore_metadata", "true");
  if (Object.keys(conditions).length) form.append("filters", JSON.stringify(conditions));
  form.append("explain", "true");
  return post("/v1/query", form, signal);
}

function searchText(text, signal) {
  return post("/v1/search", { text, k: resultCount(), filters: filters() }, signal);
}

async function search(question) {
  if (running) running.abort();
  const controller = new AbortController();
  running = controller;
  lastQuestion = question;
  const files = question.files || [];
  const items = files.length ? files : [null];
  for (const image of byId("answers").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  byId("answers").replaceChildren();
  clearProblem();
  let answered = 0;
  for (const [position, file] of items.entries()) {
    const progress = files.length > 1 ? ` image ${position + 1} of ${files.length}` : "";
    setStatus(`Searching${progress}…`, { busy: true });
    try {
      const value = file
        ? await searchImage(file, controller.signal)
        : await searchText(question.text, controller.signal);
      if (controller.signal.aborted) return;
      byId("answers").append(answer(value.results[0], file, answered));
      answered += 1;
    } catch (problem) {
      if (problem.name === "AbortError" || controller.signal.aborted) return;
      showProblem(problem, file && files.length > 1 ? file.name : "");
    }
  }
  running = null;
  setStatus(answered ? (answered === 1 ? "1 answer." : `${answered} answers.`) : "No answer.");
}

function searchFiles(list) {
  const files = [...list].filter((file) => file.size > 0 || file.type.startsWith("image/"));
  if (files.length) {
    search({ files: files.slice(0, info.limits.max_images) });
    return;
  }
  clearProblem();
  showProblem({
    detail: "That is not an image file.",
    hint: "Save the image first, then drop or choose the file.",
  });
}

// ---- answers

function answer(result, file, position) {
  const id = `answer-${position}`;
  const body = make("div", {}, how(result), ...headline(result, id), settings(result));
  return make(
    "article",
    { class: file ? "answer pictured" : "answer", "aria-labelledby": id },
    make("div", { class: "top" }, file ? picture(file) : "", body),
    ...phrases(result),
    ...tags(result),
    ...suggestion(result),
    ...contributions(result),
    ...neighbours(result, position),
  );
}

function headline(result, id) {
  if (result.how === "searched") return [make("h2", { class: "prompt", id }, result.text)];
  if (result.close !== false) {
    return [make("h2", { class: "prompt", id }, result.prompt), actions(result)];
  }
  return [
    make("h2", { class: "nothing", id }, "Nothing in the corpus is close to this image."),
    make("p", { class: "guess" }, "Best guess: ", make("span", { class: "prompt" }, result.prompt)),
    actions(result),
  ];
}

function phrases(result) {
  const shown = result.close === false ? result.shared : result.phrases;
  if (!shown || !shown.length) return [];
  const title = result.close === false ? "Phrases that many prompts around it share" : "Phrases";
  const items = shown.map(({ text, role, support }) => {
    const prompts = support === 1 ? "1 prompt" : `${support} prompts`;
    return make(
      "li",
      {},
      make("span", { class: "role" }, role),
      make("span", { class: "phrase" }, text),
      make("span", { class: "support" }, support ? prompts : "seen in the image"),
    );
  });
  return [make("h3", {}, title), make("ul", { class: "phrases" }, ...items)];
}

function tags(result) {
  if (!result.tags || !result.tags.length) return [];
  const seen = result.tags.map(({ text, probability }) => `${text} ${Math.round(probability * 100)} %`);
  return [make("p", { class: "seen" }, `Seen in the image: ${seen.join(", ")}`)];
}

function suggestion({ suggested }) {
  if (!suggested) return [];
  const negative = suggested.negative;
  const shown = negative ? [{ name: "negative", value: negative.text, support: negative.support }] : [];
  shown.push(...suggested.settings);
  const rows = shown.map(({ name, value, support }) => {
    const row = setting([name, value]);
    row.append(make("dd", { class: "support" }, `${support} prompts`));
    return row;
  });
  const copy = negative ? copyButton(negative.text, "Copy negative prompt") : "";
  return [
    make("h3", {}, `Suggested: the commonest of the ${suggested.n_prompts} prompts around it`),
    make("dl", { class: "facts suggested" }, ...rows),
    copy ? make("div", { class: "actions" }, copy) : "",
  ].filter(Boolean);
}

function picture(file) {
  const image = make("img", { src: URL.createObjectURL(file), alt: "Your image" });
  const caption = make("figcaption", {}, file.name || "pasted image");
  // The server reads formats that some browsers cannot show.
  image.addEventListener("error", () => image.remove());
  return make("figure", {}, image, caption);
}

function how(result) {
  const badge = make("span", { class: `badge ${result.how}` }, result.how);
  const line = make("p", { class: "how" }, badge);
  const tool = result.tool || "its tool";
  if (result.how === "exact") {
    line.append(`from the metadata that ${tool} wrote`);
  } else if (result.how === "carried") {
    line.append(`from the metadata that ${tool} wrote, but not exact: ${result.doubt}`);
  } else if (result.how === "estimated") {
    line.append(confidence(result.confidence));
  } else {
    line.append("the prompts nearest to the text");
  }
  if (result.note) line.append(` · ${result.note}`);
  return line;
}

function confidence(value) {
  const chance = `${Math.round(100 * value)} % likely to be close to the true prompt`;
  return value === null ? "composed from the prompts around the image" : chance;
}

function actions(result) {
  const row = make("div", { class: "actions" }, copyButton(result.prompt, "Copy prompt", "main"));
  if (result.negative) row.append(copyButton(result.negative, "Copy negative prompt"));
  return row;
}

function settings(result) {
  const rows = [["negative", result.negative], ...Object.entries(result.settings || {})];
  const shown = rows.filter(([, value]) => value);
  return shown.length ? make("dl", { class: "facts" }, ...shown.map(setting)) : "";
}

function setting([name, value]) {
  return make(
    "div",
    { class: value.length > 60 || name === "negative" ? "wide" : "" },
    make("dt", {}, name.replaceAll("_", " ")),
    make("dd", {}, value),
  );
}

function contributions(result) {
  if (!result.explanation) return [];
  const rows = result.explanation.contributions.map((contribution) => {
    const { member, share, text } = contribution;
    const weight = `weight ${Math.round(share * 100)} %`;
    return make(
      "li",
      {},
      make("span", { class: "who" }, member),
      make("span", { class: "gauge" }, bar(share), weight),
      text ? make("span", { class: "predicted" }, `“${text}”`) : "",
    );
  });
  const missing = result.explanation.left_out.map(({ member, reason }) =>
    make("li", {}, make("span", { class: "who" }, member), `unavailable: ${reason}`),
  );
  return [make("h3", {}, "Contributions of the members"), make("ul", { class: "contributions" }, ...rows, ...missing)];
}

function bar(fraction) {
  return make("span", { class: "bar", "aria-hidden": "true" }, make("span", { fraction }));
}

function neighbours(result, position) {
  const id = `nearest-${position}`;
  const title = make("h3", { id }, "Nearest prompts");
  if (!result.nearest.length) {
    return [title, make("p", { class: "fine" }, "No prompt passes the filters.")];
  }
  const names = ["Score", "Prompt", "Source", "Copy"];
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  const body = make("tbody", {}, ...result.nearest.map(neighbour));
  const table = make("table", { "aria-labelledby": id }, make("thead", {}, head), body);
  const save = make("button", { type: "button", class: "small" }, "Download as CSV");
  save.addEventListener("click", () => download(result));
  const searched = `${result.encoder} over ${result.corpus} · ${result.seconds.toFixed(2)} s`;
  return [title, table, make("div", { class: "under" }, make("p", {}, searched), save)];
}

function neighbour(hit) {
  const score = make("span", { class: "gauge" }, bar(hit.score), hit.score.toFixed(3));
  const more = `and ${hit.n_like.toLocaleString("en")} like it`;
  const like = hit.n_like ? make("span", { class: "like" }, more) : "";
  const label = `Copy the prompt: ${hit.shown.slice(0, 60)}`;
  return make(
    "tr",
    {},
    make("td", { class: "score" }, score),
    make("td", { class: "words" }, hit.shown, like),
    make("td", { class: "from" }, `${hit.source}, ${hit.source_key}`),
    make("td", { class: "do" }, copyButton(hit.shown, "Copy", "small", label)),
  );
}

// ---- copying and saving

function copyButton(text, label, kind = "quiet", description = null) {
  const attributes = { type: "button", class: kind, "aria-label": description };
  const button = make("button", attributes, label);
  button.addEventListener("click", async () => {
    const copied = await copy(text);
    button.textContent = copied ? "Copied" : "Not copied";
    setStatus(copied ? "Copied to the clipboard." : "This browser does not allow copying.");
    setTimeout(() => { button.textContent = label; }, 1600);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // The clipboard API needs HTTPS or localhost; elsewhere the older command still works.
    const area = make("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

const COLUMNS = [
  "rank", "score", "shown", "prompt", "n_like", "source", "source_key", "prompt_key", "row_id", "version",
];

function download(result) {
  const rows = result.nearest.map((hit, position) => {
    const values = { ...hit, rank: position + 1, version: result.version };
    return COLUMNS.map((name) => cell(values[name]));
  });
  const csv = [COLUMNS, ...rows].map((row) => row.join(",")).join("\r\n");
  const blob = new Blob(["\ufeff", csv, "\r\n"], { type: "text/csv" });
  const link = make("a", { href: URL.createObjectURL(blob), download: "imprompt.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  setStatus("The table was saved as imprompt.csv.");
}

function cell(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "");
  // Spreadsheets run cells that begin like this as formulas.
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

// ---- events

function countFilters() {
  const n = Object.values(filters()).flat().length;
  byId("active").textContent = String(n);
  byId("active").hidden = n === 0;
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  const again = event.submitter && event.submitter.id === "again";
  if (lastQuestion && lastQuestion.files && (again || !text)) search(lastQuestion);
  else if (text) search({ text });
  else byId("text").focus();
});
byId("options").addEventListener("input", countFilters);
byId("files").addEventListener("change", (event) => {
  if (event.target.files.length) searchFiles([...event.target.files]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  searchFiles(files);
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  searchFiles(event.dataTransfer.files);
});

async function loadInfo() {
  try {
    const response = await fetch("/v1/info");
    if (response.status === 503) {
      setStatus("Loading the models…", { busy: true });
      setTimeout(loadInfo, 1000);
      return;
    }
    info = await response.json();
    byId("k").max = Math.min(info.limits.max_k, 100);
    const n = info.prompts.toLocaleString("en");
    byId("about").textContent = `${n} prompts of ${info.corpus}, encoder ${info.encoder}`;
    if (byId("status").classList.contains("busy") && !running) setStatus("");
  } catch {
    setStatus("The server cannot be reached.");
  }
}

loadInfo();
countFilters();
