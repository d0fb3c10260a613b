// What the page does: images and texts are searched for, and each answer is shown.

import { answer, composed, pending, release } from "./answers.js";
import { askImages, askText, info, loadInfo } from "./api.js";
import { Batch } from "./batch.js";
import { byId, clearProblem, setStatus, showProblem } from "./dom.js";
import { address, addFilter, countFilters, options, readAddress, showInfo } from "./filters.js";
import { remember, showHistory } from "./history.js";
import { prepared } from "./pictures.js";

let last = null; // what "Apply filters" repeats: { text }, { file, text } or { files }
let batch = null;
let running = null; // the AbortController of the search in progress
let clock = 0;
let shown = ""; // the query of the address whose search is on the page
const updateHistory = showHistory(open);

// ---- searching

function start() {
  running?.abort();
  running = new AbortController();
  byId("cancel").hidden = false;
  byId("resume").hidden = true;
  clearProblem();
  const began = Date.now();
  clearInterval(clock);
  clock = setInterval(() => {
    const seconds = Math.round((Date.now() - began) / 1000);
    if (seconds >= 5) byId("status").dataset.seconds = `${seconds} s`;
  }, 1000);
  return running;
}

function finish(controller, status) {
  if (running !== controller) return;
  running = null;
  clearInterval(clock);
  delete byId("status").dataset.seconds;
  byId("cancel").hidden = true;
  setStatus(status);
}

function clear() {
  batch?.close();
  batch = null;
  release(byId("answers"));
}

// Runs `work(signal)`; a problem is shown, and a cancelled search says so.
async function search(work) {
  const controller = start();
  try {
    await work(controller.signal);
    finish(controller, batch ? countAnswers() : "1 answer.");
  } catch (problem) {
    if (running !== controller) return; // a newer search has the page
    for (const node of byId("answers").querySelectorAll(".pending")) node.remove();
    const cancelled = problem.name === "AbortError";
    if (!cancelled) showProblem(asProblem(problem));
    byId("resume").hidden = !batch || batch.finished;
    finish(controller, batch ? countAnswers() : cancelled ? "Cancelled." : "No answer.");
  }
}

function asProblem(problem) {
  if (problem.detail) return problem;
  console.error(problem);
  return { detail: `The page failed: ${problem.message}` };
}

function countAnswers() {
  const { answered, items } = batch;
  const n = answered.toLocaleString("en");
  if (batch.finished && answered === items.length) return `${n} answers.`;
  return `${n} of ${items.length.toLocaleString("en")} images have an answer.`;
}

function one(file = null) {
  clear();
  document.body.classList.add("answered");
  const place = pending(file);
  byId("answers").append(place);
  setStatus("Searching…", { busy: true });
  return (node) => place.replaceWith(node);
}

// The functions that the answer for a file needs.
function helpers(file) {
  return {
    filter(name, phrase) {
      addFilter(name, phrase);
      repeat();
    },
    async guess() {
      const { file: sent } = await prepared(file);
      const [result] = await askImages([sent], { ...options(), k: 1, ignore: true, explain: true });
      if (result.error) throw result.error;
      return result;
    },
  };
}

function searchImage(file, text = "") {
  last = { file, text };
  hold(file);
  if (!text) byId("text-query").value = "";
  visit(address(""));
  const put = one(file);
  return search(async (signal) => {
    const { file: sent, note } = await prepared(file);
    const [result] = await askImages([sent], { ...options(), text, explain: true }, signal);
    signal.throwIfAborted();
    if (result.error) throw result.error;
    result.note = [result.note, note].filter(Boolean).join(" · ");
    put(answer(result, { file, ask: helpers(file) }));
    if (!text) {
      await remember({ prompt: composed(result) || result.prompt, file });
      updateHistory();
    }
  });
}

function searchText(text, { isNew = true } = {}) {
  last = { text };
  hold(null);
  if (isNew) visit(address(text));
  const put = one();
  return search(async (signal) => {
    const result = await askText(text, options(), signal);
    signal.throwIfAborted();
    put(answer(result, { ask: helpers(null) }));
    await remember({ text, address: address(text) });
    updateHistory();
  });
}

function searchMany(files) {
  last = { files };
  hold(null);
  byId("text-query").value = "";
  visit(address(""));
  clear();
  document.body.classList.add("answered");
  batch = new Batch(files, { options: options(), ask: helpers });
  byId("answers").append(batch.node);
  return search((signal) => batch.run(signal));
}

function repeat() {
  if (!last) return;
  if (last.files) searchMany(last.files);
  else if (last.file) searchImage(last.file, last.text);
  else searchText(last.text);
}

function searchFiles(list) {
  // A folder and text that was dropped have neither a size nor a type.
  const files = [...list].filter((file) => file.size > 0 || file.type.startsWith("image/"));
  if (files.length > 1) searchMany(files);
  else if (files.length) searchImage(files[0]);
  else {
    clearProblem();
    showProblem({
      detail: "That is not an image file.",
      hint: "Save the image first, then drop or choose the file.",
    });
  }
}

// The image that words are mixed with; it stands in the field of the text.
function hold(file) {
  const token = byId("held-image");
  const image = token.querySelector("img");
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  token.hidden = !file;
  byId("text-label").textContent = file ? "add words to search with the image" : "or search by text";
  if (!file) return;
  image.hidden = false;
  image.src = URL.createObjectURL(file);
  token.querySelector(".name").textContent = file.name || "pasted image";
}

// ---- addresses: back and forward repeat searches by text

function visit(target) {
  if (target !== location.pathname + location.search) history.pushState(null, "", target);
  shown = location.search;
}

function open(target) {
  visit(target);
  readPage();
  scrollTo(0, 0);
}

function readPage() {
  shown = location.search;
  const text = readAddress();
  if (text) {
    searchText(text, { isNew: false });
    return;
  }
  running?.abort();
  last = null;
  hold(null);
  clear();
  clearProblem();
  if (running) finish(running, "");
  else setStatus("");
}

// ---- events

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text-query").value.trim();
  const held = byId("held-image").hidden ? null : last?.file;
  if (event.submitter?.id === "apply-filters" && last) {
    if (text && !last.files) last.text = text;
    repeat();
  } else if (held) searchImage(held, text);
  else if (text) searchText(text);
  else byId("text-query").focus();
});
byId("filter-panel").addEventListener("input", countFilters);
byId("cancel").addEventListener("click", () => running?.abort());
byId("resume").addEventListener("click", () => search((signal) => batch.run(signal)));
byId("let-go").addEventListener("click", () => {
  hold(null);
  last = null;
  byId("text-query").focus();
});
byId("held-image").querySelector("img").addEventListener("error", (event) => { event.target.hidden = true; });
byId("image-files").addEventListener("change", (event) => {
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
    byId("drop-zone").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("drop-zone").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop-zone").classList.remove("over");
  searchFiles(event.dataTransfer.files);
});
addEventListener("popstate", () => {
  if (location.search !== shown) readPage(); // else the link to the answers was followed
});

async function begin() {
  try {
    const loaded = await loadInfo();
    if (!loaded) {
      setStatus("Loading the models…", { busy: true });
      setTimeout(begin, 1000);
      return;
    }
  } catch (problem) {
    setStatus(problem.detail ?? "The server cannot be reached.");
    return;
  }
  showInfo();
  const n = info.prompts.toLocaleString("en");
  byId("about").textContent = `${n} prompts of ${info.corpus}, encoder ${info.encoder}`;
  if (!running) readPage();
}

begin();
