// The filters of the form, and the address that says them: /?q=…&contains=…

import { info } from "./api.js";
import { byId, make } from "./dom.js";

const FIELDS = { contains: "filter-contains", exclude: "filter-exclude", where: "filter-where" };

const words = (id) => byId(id).value.split(",").map((word) => word.trim()).filter(Boolean);
const sourceBoxes = () => [...byId("filter-sources").querySelectorAll("input")];

// The sources that are chosen; none if all are.
function chosenSources() {
  const boxes = sourceBoxes();
  const checked = boxes.filter((box) => box.checked);
  return checked.length === boxes.length ? [] : checked.map((box) => box.value);
}

export function filters() {
  const values = {};
  const quoted = chosenSources().map((source) => `'${source.replaceAll("'", "''")}'`);
  const conditions = [
    quoted.length ? `source IN (${quoted.join(", ")})` : "",
    byId("filter-where").value.trim(),
  ].filter(Boolean);
  if (conditions.length === 1) [values.where] = conditions;
  else if (conditions.length) values.where = conditions.map((part) => `(${part})`).join(" AND ");
  if (words("filter-contains").length) values.contains = words("filter-contains");
  if (words("filter-exclude").length) values.exclude = words("filter-exclude");
  if (byId("filter-artists").checked) values.no_artists = true;
  return values;
}

export function resultCount() {
  const k = Number.parseInt(byId("filter-k").value, 10);
  return Math.min(Math.max(Number.isNaN(k) ? 10 : k, 1), info.limits.max_k);
}

export function options() {
  return { k: resultCount(), filters: filters(), ignore: byId("filter-ignore").checked };
}

// Adds a phrase to "Contains" or "Without".
export function addFilter(name, phrase) {
  const listed = words(FIELDS[name]);
  if (!listed.includes(phrase)) byId(FIELDS[name]).value = [...listed, phrase].join(", ");
  byId("filter-panel").open = true;
  countFilters();
}

export function countFilters() {
  const { where, ...others } = filters();
  const n = Object.values(others).flat().length
    + (byId("filter-where").value.trim() ? 1 : 0) + (chosenSources().length ? 1 : 0);
  byId("filter-count").textContent = String(n);
  byId("filter-count").hidden = n === 0;
}

export function showInfo() {
  byId("filter-k").max = Math.min(info.limits.max_k, 100);
  byId("artists-choice").hidden = !info.artists;
  const sources = Object.entries(info.sources);
  byId("filter-sources").hidden = sources.length < 2;
  const boxes = sources.map(([name, count]) =>
    make(
      "label",
      { class: "check" },
      make("input", { type: "checkbox", value: name, checked: true }),
      name,
      make("span", { class: "n" }, count.toLocaleString("en")),
    ),
  );
  byId("filter-sources").replaceChildren(make("legend", {}, "Sources"), ...boxes);
}

// ---- the address

export function address(text) {
  const query = new URLSearchParams();
  if (text) query.set("q", text);
  for (const [name, id] of Object.entries(FIELDS)) {
    if (byId(id).value.trim()) query.set(name, byId(id).value.trim());
  }
  for (const source of chosenSources()) query.append("source", source);
  if (resultCount() !== 10) query.set("k", resultCount());
  if (byId("filter-artists").checked) query.set("no_artists", "1");
  const said = query.toString();
  return said ? `/?${said}` : "/";
}

// Sets the form from the page's address; returns its text.
export function readAddress() {
  const query = new URLSearchParams(location.search);
  for (const [name, id] of Object.entries(FIELDS)) byId(id).value = query.get(name) ?? "";
  const sources = query.getAll("source");
  for (const box of sourceBoxes()) box.checked = !sources.length || sources.includes(box.value);
  byId("filter-k").value = query.get("k") ?? "10";
  byId("filter-artists").checked = info.artists && query.get("no_artists") === "1";
  countFilters();
  const text = (query.get("q") ?? "").trim();
  byId("text-query").value = text;
  return text;
}
