// What was asked in this browser: kept in its localStorage, sent to nobody.

import { button, byId, copyButton, make } from "./dom.js";
import { thumbnail } from "./pictures.js";

const KEY = "imprompt-history";
const MOST = 40;
const SIDE = 72;

function entries() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept : [];
  } catch {
    return [];
  }
}

function keep(list) {
  for (let rest = list.slice(0, MOST); ; rest = rest.slice(0, -5)) {
    try {
      if (rest.length) localStorage.setItem(KEY, JSON.stringify(rest));
      else localStorage.removeItem(KEY);
      return;
    } catch {
      if (!rest.length) return; // this browser keeps nothing
    }
  }
}

// Adds a search by text with the page's address, or an image with its prompt and a thumbnail.
export async function remember({ text = "", prompt = "", file = null, address = "" }) {
  let picture = "";
  if (file) picture = await thumbnail(file, SIDE).then(base64, () => "");
  const entry = { text, prompt, picture, address, at: Date.now() };
  const others = entries().filter((other) => !address || other.address !== address);
  keep([entry, ...others]);
}

async function base64(blob) {
  return btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())));
}

function picture(entry) {
  if (!entry.picture) return make("span", { class: "no-picture", "aria-hidden": "true" }, "Aa");
  const bytes = Uint8Array.from(atob(entry.picture), (char) => char.charCodeAt(0));
  const image = make("img", { alt: "", src: URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })) });
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  return image;
}

// `open(address)` repeats a search.
export function showHistory(open) {
  const panel = byId("history");
  const list = panel.querySelector("ul");
  const show = () => {
    const kept = entries();
    panel.hidden = !kept.length;
    if (panel.open) list.replaceChildren(...kept.map((entry) => item(entry, open)));
  };
  panel.addEventListener("toggle", show);
  byId("forget").addEventListener("click", () => {
    keep([]);
    panel.open = false;
    show();
  });
  show();
  return show;
}

function item(entry, open) {
  const when = new Date(entry.at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
  const words = entry.prompt || `“${entry.text}”`;
  const again = entry.address
    ? button("Search again", () => open(entry.address), { kind: "small", description: `Search again: ${entry.text}` })
    : copyButton(entry.prompt, "Copy", { kind: "small", description: `Copy the prompt: ${words.slice(0, 60)}` });
  return make(
    "li",
    {},
    picture(entry),
    make("div", {}, make("p", {}, words), make("p", { class: "fine" }, make("time", {}, when))),
    again,
  );
}
