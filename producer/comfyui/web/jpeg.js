// A JPEG or a JPEG XL dropped on the page restores its workflow. ComfyUI itself reads PNG,
// WebP and AVIF only.
//
// Luna writes prompt and workflow as ASCII entries "key:json" of IFD0, as in WebP.

import { app } from "../../scripts/app.js";

const SETTING = "Luna.RestoreFromJpeg";
const ASCII = 2;

/** {prompt, workflow} of a JPEG's bytes, as texts; what is absent is left out. */
export function readJpeg(buffer) {
  const view = new DataView(buffer);
  let at = 2;
  while (at + 4 <= view.byteLength && view.getUint8(at) === 0xff) {
    const marker = view.getUint8(at + 1);
    const size = view.getUint16(at + 2);
    if (marker === 0xda) break; // the picture itself
    if (marker === 0xe1 && view.getUint32(at + 4) === 0x45786966) {
      const found = readTiff(new DataView(buffer, at + 10, size - 8));
      if (found.prompt || found.workflow) return found;
    }
    at += 2 + size;
  }
  return {};
}

/** The same of a JPEG XL, which is a row of boxes; a bare codestream has no texts. */
export function readJpegXl(buffer) {
  const view = new DataView(buffer);
  let at = 0;
  while (at + 12 <= view.byteLength && view.getUint32(0) === 12) {
    const size = view.getUint32(at) || view.byteLength - at;
    if (view.getUint32(at + 4) === 0x45786966) { // Exif
      const start = at + 12 + view.getUint32(at + 8);
      return readTiff(new DataView(buffer, start, at + size - start));
    }
    if (size < 8) break;
    at += size;
  }
  return {};
}

function readTiff(tiff) {
  const little = tiff.getUint16(0) === 0x4949;
  const ifd = tiff.getUint32(4, little);
  const found = {};
  for (let i = 0; i < tiff.getUint16(ifd, little); i++) {
    const entry = ifd + 2 + 12 * i;
    const count = tiff.getUint32(entry + 4, little);
    if (tiff.getUint16(entry + 2, little) !== ASCII || count <= 4) continue;
    const place = tiff.getUint32(entry + 8, little);
    const bytes = new Uint8Array(tiff.buffer, tiff.byteOffset + place, count - 1);
    const text = new TextDecoder().decode(bytes);
    const colon = text.indexOf(":");
    found[text.slice(0, colon)] = text.slice(colon + 1);
  }
  return found;
}

/** JSON as Python writes it: NaN may be in it. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return JSON.parse(text.replace(/\bNaN\b/g, "null"));
  }
}

/** Browsers that cannot show them have no type for them. */
function isJpegXl(file) {
  return file?.type === "image/jxl" || /\.jxl$/i.test(file?.name ?? "");
}

async function restored(file) {
  try {
    const read = isJpegXl(file) ? readJpegXl : readJpeg;
    const found = read(await file.arrayBuffer());
    if (found.workflow) await app.loadGraphData(parse(found.workflow), true, true, file.name);
    else if (found.prompt) await app.loadApiJson(parse(found.prompt), file.name);
    else return false;
    return true;
  } catch (error) {
    console.warn("Luna: the picture's workflow cannot be read:", error);
    return false;
  }
}

export const setting = {
  id: SETTING,
  category: ["Luna", "Pictures", "JPEG"],
  name: "A JPEG or a JPEG XL dropped on the page restores its workflow",
  type: "boolean",
  defaultValue: true,
};

/** ComfyUI has no way to add a kind of file, so its handler is wrapped. */
export function handleJpeg() {
  const handleFile = app.handleFile;
  if (typeof handleFile !== "function") return;
  app.handleFile = async function (file, ...rest) {
    const wanted = (file?.type === "image/jpeg" || isJpegXl(file)) &&
      (app.extensionManager?.setting?.get?.(SETTING) ?? true);
    if (wanted && (await restored(file))) return undefined;
    return handleFile.call(this, file, ...rest);
  };
}
