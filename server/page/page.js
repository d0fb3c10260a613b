// The page asks /v1 of the server that it came from, and nothing else. What it shows is set as text, never as markup.
"use strict";

const find = (id) => document.getElementById(id);
const RETRIES = 3;
let info = { members: {}, limits: { max_images: 16, max_k: 100 } };
let last = null; // {files} or {text}: what "ask again" asks
let running = null; // the AbortController of what is being asked

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "part") node.style.setProperty("--part", String(Math.min(Math.max(value, 0), 1)));
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

const words = (id) => find(id).value.split(",").map((word) => word.trim()).filter(Boolean);

function filters() {
  const chosen = {};
  if (find("where").value.trim()) chosen.where = find("where").value.trim();
  if (words("contains").length) chosen.contains = words("contains");
  if (words("exclude").length) chosen.exclude = words("exclude");
  if (find("no-artists").checked) chosen.no_artists = true;
  return chosen;
}

function neighbours() {
  const k = Number.parseInt(find("k").value, 10);
  return Math.min(Math.max(Number.isNaN(k) ? 10 : k, 1), info.limits.max_k);
}

function say(text, { busy = false } = {}) {
  find("status").textContent = text;
  find("status").classList.toggle("busy", busy);
}

function showProblem(problem, name = "") {
  const box = find("problem");
  const lead = name ? `${name}: ` : "";
  box.append(make("p", {}, lead + problem.detail), problem.hint ? make("p", { class: "hint" }, problem.hint) : "");
  box.hidden = false;
}

// ---- asking

async function post(path, body, signal) {
  for (let attempt = 0; ; attempt += 1) {
    const form = body instanceof FormData;
    let response;
    try {
      response = await fetch(path, {
        method: "POST",
        body: form ? body : JSON.stringify(body),
        headers: form ? {} : { "Content-Type": "application/json" },
        signal,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw { detail: "The server cannot be reached.", hint: "Is it still running?" };
    }
    if (response.status === 503 && attempt < RETRIES) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      say("The server is busy; asking again in a moment…", { busy: true });
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      continue;
    }
    const value = await response.json().catch(() => ({ detail: `The server answered ${response.status}.` }));
    if (!response.ok) throw value;
    return value;
  }
}

function askImage(file, signal) {
  const form = new FormData();
  const chosen = filters();
  const filtered = Object.keys(chosen).length > 0;
  form.append("image", file, "image"); // what the file is called stays here
  form.append("k", neighbours());
  if (find("ignore").checked) form.append("ignore_metadata", "true");
  if (filtered) form.append("filters", JSON.stringify(chosen));
  else if (Object.keys(info.members).length) form.append("members", "true");
  return post("/v1/query", form, signal);
}

const askText = (text, signal) => post("/v1/search", { text, k: neighbours(), filters: filters() }, signal);

async function ask(question) {
  if (running) running.abort();
  const own = new AbortController();
  running = own;
  last = question;
  const files = question.files || [];
  const items = files.length ? files : [null];
  for (const image of find("answers").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  find("answers").replaceChildren();
  find("problem").replaceChildren();
  find("problem").hidden = true;
  let answered = 0;
  for (const [place, file] of items.entries()) {
    say(files.length > 1 ? `Looking at image ${place + 1} of ${files.length}…` : "Looking…", { busy: true });
    try {
      const value = file ? await askImage(file, own.signal) : await askText(question.text, own.signal);
      if (own.signal.aborted) return;
      find("answers").append(answer(value.results[0], file, answered));
      answered += 1;
    } catch (problem) {
      if (problem.name === "AbortError" || own.signal.aborted) return;
      showProblem(problem, file && files.length > 1 ? file.name : "");
    }
  }
  running = null;
  say(answered ? (answered === 1 ? "1 answer." : `${answered} answers.`) : "No answer.");
}

function askFiles(list) {
  const files = [...list].filter((file) => file.size > 0 || file.type.startsWith("image/"));
  if (!files.length) {
    find("problem").replaceChildren();
    showProblem({ detail: "That was no image file.", hint: "Save the image first, then drop or choose the file." });
    return;
  }
  ask({ files: files.slice(0, info.limits.max_images) });
}

// ---- answers

function answer(result, file, place) {
  const id = `answer-${place}`;
  const body = make("div", {}, how(result), make("h2", { class: "prompt", id }, result.prompt), actions(result), facts(result));
  const top = make("div", { class: "top" }, file ? picture(file) : "", body);
  return make(
    "article",
    { class: file ? "answer pictured" : "answer", "aria-labelledby": id },
    top,
    ...votes(result),
    ...nearest(result, place),
  );
}

function picture(file) {
  const image = make("img", { src: URL.createObjectURL(file), alt: "The image that was asked about" });
  const figure = make("figure", {}, image, make("figcaption", {}, file.name || "pasted image"));
  image.addEventListener("error", () => image.remove()); // a format that the server reads and this browser does not
  return figure;
}

function how(result) {
  const line = make("p", { class: "how" }, make("span", { class: `badge ${result.how}` }, result.how));
  if (result.how === "exact") line.append(`written in the file by ${result.tool || "its tool"}`);
  else if (result.how === "carried") line.append(`found in the file of ${result.tool || "its tool"}, but not exact: ${result.doubt}`);
  else if (result.explanation) line.append(confidence(result.explanation.confidence));
  else line.append(result.text ? "the nearest prompt to the text" : "the nearest prompt; members know of no filters and did not vote");
  if (result.note) line.append(` · ${result.note}`);
  return line;
}

const confidence = (value) => (value === null ? "confidence: not calibrated" : `confidence ${value.toFixed(2)}`);

function actions(result) {
  const row = make("div", { class: "actions" }, copyButton(result.prompt, "Copy prompt", "main"));
  if (result.negative) row.append(copyButton(result.negative, "Copy negative prompt"));
  return row;
}

function facts(result) {
  const rows = [["negative", result.negative], ...Object.entries(result.settings || {})].filter(([, value]) => value);
  if (!rows.length) return "";
  return make("dl", { class: "facts" }, ...rows.map(fact));
}

function fact([name, value]) {
  const shown = name.replaceAll("_", " ");
  return make("div", { class: value.length > 60 || name === "negative" ? "wide" : "" }, make("dt", {}, shown), make("dd", {}, value));
}

function votes(result) {
  if (!result.explanation) return [];
  const rows = result.explanation.contributions.map((vote) =>
    make(
      "li",
      {},
      make("span", { class: "who" }, vote.member),
      make("span", { class: "gauge" }, bar(vote.share), `${Math.round(vote.share * 100)} % of the vote, cosine ${vote.cosine.toFixed(2)}`),
      vote.text ? make("span", { class: "said" }, `“${vote.text}”`) : "",
    ),
  );
  const missing = result.explanation.left_out.map((error) => make("li", {}, make("span", { class: "who" }, error.member), `left out: ${error.reason}`));
  const title = result.how !== "estimated" ? "What the members would have said" : "How the members voted";
  return [make("h3", {}, title), make("ul", { class: "votes" }, ...rows, ...missing)];
}

function bar(part) {
  return make("span", { class: "bar", "aria-hidden": "true" }, make("span", { part }));
}

function nearest(result, place) {
  if (!result.neighbours.length) return [make("h3", {}, "Nearest prompts"), make("p", { class: "fine" }, "None passes the filters.")];
  const title = make("h3", { id: `nearest-${place}` }, "Nearest prompts");
  const head = make("tr", {}, ...["Score", "Prompt", "Source", "Copy"].map((name) => make("th", { scope: "col" }, name)));
  const rows = result.neighbours.map((hit) =>
    make(
      "tr",
      {},
      make("td", { class: "score" }, make("span", { class: "gauge" }, bar(hit.score), hit.score.toFixed(3))),
      make("td", { class: "words" }, hit.prompt, hit.n_like ? make("span", { class: "like" }, `and ${hit.n_like.toLocaleString("en")} like it`) : ""),
      make("td", { class: "from" }, `${hit.source}, ${hit.source_key}`),
      make("td", { class: "do" }, copyButton(hit.prompt, "Copy", "small", `Copy the prompt: ${hit.prompt.slice(0, 60)}`)),
    ),
  );
  const table = make("table", { "aria-labelledby": `nearest-${place}` }, make("thead", {}, head), make("tbody", {}, ...rows));
  const save = make("button", { type: "button", class: "small" }, "Download as CSV");
  save.addEventListener("click", () => download(result));
  const about = `${result.encoder} over ${result.corpus} · ${result.seconds.toFixed(2)} s`;
  return [title, table, make("div", { class: "under" }, make("p", {}, about), save)];
}

// ---- copying and saving

function copyButton(text, label, kind = "quiet", described = label) {
  const button = make("button", { type: "button", class: kind, "aria-label": described === label ? null : described }, label);
  button.addEventListener("click", async () => {
    const done = await copy(text);
    button.textContent = done ? "Copied" : "Not copied";
    say(done ? "Copied to the clipboard." : "This browser does not let a page copy.");
    setTimeout(() => { button.textContent = label; }, 1600);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without https and off this machine there is no clipboard API; the older way still works there.
    const area = make("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function download(result) {
  const columns = ["rank", "score", "prompt", "n_like", "source", "source_key", "prompt_key", "row_id", "version"];
  const rows = result.neighbours.map((hit, place) => columns.map((name) => cell({ ...hit, rank: place + 1, version: result.version }[name])));
  const csv = [columns.join(","), ...rows.map((row) => row.join(","))].join("\r\n");
  const link = make("a", { href: URL.createObjectURL(new Blob(["\ufeff", csv, "\r\n"], { type: "text/csv" })), download: "imprompt.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say("The table was saved as imprompt.csv.");
}

function cell(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // no prompt is a formula
  return `"${safe.replaceAll('"', '""')}"`;
}

// ---- events

function countFilters() {
  const n = Object.values(filters()).flat().length;
  find("active").textContent = String(n);
  find("active").hidden = n === 0;
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text").value.trim();
  const again = event.submitter && event.submitter.id === "again";
  if (last && last.files && (again || !text)) ask(last);
  else if (text) ask({ text });
  else find("text").focus();
});
find("options").addEventListener("input", countFilters);
find("files").addEventListener("change", (event) => {
  if (event.target.files.length) askFiles([...event.target.files]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  askFiles(files);
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) find("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  askFiles(event.dataTransfer.files);
});

async function about() {
  try {
    const response = await fetch("/v1/info");
    if (response.status === 503) {
      say("The models are being loaded…", { busy: true });
      setTimeout(about, 1000);
      return;
    }
    info = await response.json();
    find("k").max = Math.min(info.limits.max_k, 100);
    find("about").textContent = `${info.prompts.toLocaleString("en")} prompts of ${info.corpus}, encoder ${info.encoder}`;
    if (find("status").classList.contains("busy") && !running) say("");
  } catch {
    say("The server cannot be reached.");
  }
}

about();
countFilters();
