// Nodes, messages, copying and saving. Data is inserted as text, never as markup.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "fraction") {
      node.style.setProperty("--fraction", String(Math.min(Math.max(value, 0), 1)));
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

export const hidden = (text) => make("span", { class: "hidden-text" }, text);

export function button(label, onClick, { kind = "quiet", description = null, ...rest } = {}) {
  const attributes = { type: "button", class: kind, "aria-label": description, ...rest };
  const node = make("button", attributes, label);
  node.addEventListener("click", onClick);
  return node;
}

export function setStatus(text, { busy = false } = {}) {
  byId("status").textContent = text;
  byId("status").classList.toggle("busy", busy);
}

export function clearProblem() {
  byId("problem").replaceChildren();
  byId("problem").hidden = true;
}

export function showProblem(problem, name = "") {
  byId("problem").append(problemText(problem, name));
  byId("problem").hidden = false;
}

export function problemText({ detail, hint = "" }, name = "") {
  const forPeople = hint && !hint.startsWith("/"); // some hints name a route of the API
  return make(
    "div",
    {},
    make("p", {}, name ? `${name}: ${detail}` : detail),
    forPeople ? make("p", { class: "hint" }, hint) : "",
  );
}

// ---- copying and saving

export function copyButton(text, label, { kind = "quiet", description = null } = {}) {
  const node = button(label, async () => {
    const copied = await copy(typeof text === "function" ? text() : text);
    node.textContent = copied ? "Copied" : "Not copied";
    setStatus(copied ? "Copied to the clipboard." : "This browser does not allow copying.");
    setTimeout(() => { node.textContent = label; }, 1600);
  }, { kind, description });
  return node;
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

export function save(parts, name, type) {
  const link = make("a", { href: URL.createObjectURL(new Blob(parts, { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  setStatus(`Saved as ${name}.`);
}

// Each cell is quoted and otherwise as it is. A spreadsheet may run a cell that begins with = + - @
// as a formula, and no quoting prevents that; a sign put before it would change the prompt.
export function saveTable(columns, rows, name) {
  const cell = (value) =>
    typeof value === "number" ? String(value) : `"${String(value ?? "").replaceAll('"', '""')}"`;
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column]))];
  const csv = lines.map((line) => line.map(cell).join(",")).join("\r\n");
  save(["\ufeff", csv, "\r\n"], name, "text/csv");
}
