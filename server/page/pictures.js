// Pictures in the browser: thumbnails, and large files scaled with the texts of their headers kept.

import { info } from "./api.js";

const NEEDLESSLY_LARGE = 4 << 20; // a JPEG of more bytes is scaled
const SHORTER_SIDE = 1024; // the server itself reads 768

// Resolves to { file, note }: the file to send, and what was lost, if anything. Rejects with a
// problem if the file has more bytes than may be sent and cannot be scaled.
export async function prepared(file) {
  const ready = await scaledIfLarge(file);
  const most = info.limits.max_image_bytes;
  if (ready.file.size <= most) return ready;
  const inMegabytes = (bytes) => `${(bytes / (1 << 20)).toFixed(1)} MB`;
  throw {
    status: 413,
    detail: `The image has ${inMegabytes(file.size)}; the limit is ${inMegabytes(most)}.`,
    hint: "Save it smaller, as a JPEG or PNG.",
  };
}

async function scaledIfLarge(file) {
  const most = info.limits.max_image_bytes;
  const head = new Uint8Array(await file.slice(0, 16).arrayBuffer());
  const kind = kindOf(head);
  // A prompt may be hidden in the pixels of PNG and WebP, so they are scaled only if they must be.
  const from = kind === "jpeg" ? Math.min(NEEDLESSLY_LARGE, most) : most;
  if (file.size <= from || !kind) return { file, note: "" };
  try {
    const header = await textsOf(file, kind);
    const blob = await scaled(file, kind, header);
    const note = kind === "jpeg" ? "" : "scaled down to send it: a prompt hidden in its pixels is not found";
    return { file: blob, note };
  } catch {
    return { file, note: "" }; // damaged, or larger than this browser can draw
  }
}

export async function thumbnail(file, side) {
  const whole = await createImageBitmap(file);
  const scale = Math.min(1, side / Math.max(whole.width, whole.height));
  const canvas = drawn(whole, scale);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.75));
}

function drawn(bitmap, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

async function scaled(file, kind, header) {
  const bitmap = await createImageBitmap(file); // upright, by the orientation in its EXIF
  const scale = Math.min(1, SHORTER_SIDE / Math.min(bitmap.width, bitmap.height));
  const canvas = drawn(bitmap, scale);
  const type = kind === "jpeg" ? "image/jpeg" : "image/png";
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
  const pixels = new Uint8Array(await blob.arrayBuffer());
  const at = kind === "jpeg" ? 2 : 33; // after SOI; after the signature and IHDR
  return new Blob([pixels.subarray(0, at), ...header, pixels.subarray(at)], { type });
}

function kindOf(head) {
  const ascii = String.fromCharCode(...head);
  if (head[0] === 0xff && head[1] === 0xd8) return "jpeg";
  if (ascii.startsWith("\x89PNG")) return "png";
  if (ascii.startsWith("RIFF") && ascii.slice(8, 12) === "WEBP") return "webp";
  return "";
}

// ---- the texts of a file's header, as parts of the file that is sent instead

async function textsOf(file, kind) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const view = new DataView(bytes.buffer);
  if (kind === "jpeg") return jpegSegments(bytes, view);
  return kind === "png" ? pngChunks(bytes, view) : webpChunks(bytes, view);
}

// EXIF and XMP (APP1), IPTC (APP13) and comments (COM), which stand before the pixels.
function jpegSegments(bytes, view) {
  const kept = [];
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
    const marker = bytes[at + 1];
    if (marker === 0xda || marker === 0xd9) break;
    const end = at + 2 + view.getUint16(at + 2);
    if (marker === 0xe1 || marker === 0xed || marker === 0xfe) {
      const segment = bytes.slice(at, end);
      if (marker === 0xe1 && ascii(segment, 4, 10) === "Exif\0\0") setUpright(segment, 10);
      kept.push(segment);
    }
    at = end;
  }
  return kept;
}

const TEXT_CHUNKS = new Set(["tEXt", "zTXt", "iTXt"]);

function pngChunks(bytes, view) {
  const kept = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const end = at + 12 + view.getUint32(at);
    const type = ascii(bytes, at + 4, at + 8);
    if (TEXT_CHUNKS.has(type)) kept.push(bytes.slice(at, end));
    if (type === "eXIf") {
      const exif = bytes.slice(at + 8, end - 4);
      setUpright(exif, 0);
      kept.push(pngChunk("eXIf", exif));
    }
    at = end;
  }
  return kept;
}

// EXIF and XMP of a WebP go into a PNG, which every browser can write.
function webpChunks(bytes, view) {
  const kept = [];
  for (let at = 12; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + 4, true);
    const type = ascii(bytes, at, at + 4);
    let content = bytes.slice(at + 8, at + 8 + size);
    if (type === "EXIF") {
      if (ascii(content, 0, 6) === "Exif\0\0") content = content.slice(6);
      setUpright(content, 0);
      kept.push(pngChunk("eXIf", content));
    } else if (type === "XMP ") {
      const head = new TextEncoder().encode("XML:com.adobe.xmp\0\0\0\0\0");
      const text = new Uint8Array(head.length + content.length);
      text.set(head);
      text.set(content, head.length);
      kept.push(pngChunk("iTXt", text));
    }
    at += 8 + size + (size % 2);
  }
  return kept;
}

function ascii(bytes, from, to) {
  return String.fromCharCode(...bytes.subarray(from, to));
}

// The pixels were drawn upright, so the EXIF must not turn them again (CIPA DC-008, tag 274).
function setUpright(bytes, start) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const little = view.getUint16(start) === 0x4949;
  const directory = start + view.getUint32(start + 4, little);
  const entries = view.getUint16(directory, little);
  for (let entry = 0; entry < entries; entry += 1) {
    const at = directory + 2 + 12 * entry;
    if (view.getUint16(at, little) === 0x0112) view.setUint16(at + 8, 1, little);
  }
}

function pngChunk(type, content) {
  const chunk = new Uint8Array(12 + content.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, content.length);
  chunk.set(new TextEncoder().encode(type), 4);
  chunk.set(content, 8);
  view.setUint32(8 + content.length, checksum(chunk.subarray(4, 8 + content.length)));
  return chunk;
}

// The CRC-32 of a PNG chunk's type and content (RFC 2083, section 3.4).
function checksum(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}
