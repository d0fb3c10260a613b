// Requests to /v1 of this page's own server, and nothing else.

import { setStatus } from "./dom.js";

const RETRIES = 3;

export let info = {
  sources: {}, pictures: [], artists: false,
  limits: { max_images: 16, max_k: 100, max_image_bytes: 32 << 20, max_body_bytes: 64 << 20 },
};

// Resolves to null while the server loads its models.
export async function loadInfo() {
  const response = await fetch("/v1/info");
  if (response.status === 503) return null;
  const value = await response.json();
  if (!response.ok) throw value;
  info = value;
  return info;
}

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
      throw { detail: "The server cannot be reached.", hint: "Is it still running?", status: 0 };
    }
    if (response.status === 503 && attempt < RETRIES) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      setStatus("The server is busy. Retrying…", { busy: true });
      await pause(seconds * 1000, signal);
      continue;
    }
    const fallback = { detail: `The server answered with status ${response.status}.` };
    const value = await response.json().catch(() => fallback);
    if (!response.ok) throw { status: response.status, ...value };
    return value;
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

// One result for each image, in order; a result may be an error.
export async function askImages(images, { k, filters, text, ignore, explain }, signal) {
  const form = new FormData();
  for (const image of images) form.append("image", image, "image"); // file names are not sent
  form.append("k", k);
  if (ignore) form.append("ignore_metadata", "true");
  if (Object.keys(filters).length) form.append("filters", JSON.stringify(filters));
  if (text) {
    form.append("text", text);
    form.append("shared", "true");
  } else if (explain) {
    form.append("explain", "true");
  }
  return (await post("/v1/query", form, signal)).results;
}

export async function askText(text, { k, filters }, signal) {
  const value = await post("/v1/search", { text, k, filters, shared: true }, signal);
  return value.results[0];
}
