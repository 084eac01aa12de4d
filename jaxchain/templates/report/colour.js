// One colour map for all Jacobians: blue below zero, red above, the page's own ground at zero; NaN and ∞ are grey, marked.
// Weights between zero and one have another, green from the ground on.

const LIGHT = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f";
const DARK = "c4e2fa 78b6ea 3f88ca 28608f 1e3b55 1c2025 4c2a26 873c32 c95a45 f0916f fcd5bb";
const WEIGHTS_LIGHT = "f7f7f7 e0f1dc c2e4bf 98d097 66b86f 389b53 167d3c 005f2a 00401b";
const WEIGHTS_DARK = "1c2025 1d3529 1f4b32 23633d 2f7d4d 479863 6fb384 a0cfab d6efda";
const dark = matchMedia("screen and (prefers-color-scheme: dark)");
const repaints = [];
let printing = false;

const isDark = () => dark.matches && !printing;
const notFinite = () => (isDark() ? "#9a9a9a" : "#555555");

const scales = new Map();

/** 255 colours from negative to positive, the middle one for zero, or of weights from zero to one; as bytes for images, and as a gradient for bars. */
function colours(weights = false) {
  const name = weights ? (isDark() ? WEIGHTS_DARK : WEIGHTS_LIGHT) : isDark() ? DARK : LIGHT;
  if (!scales.has(name)) {
    const anchors = name.split(" ").map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));
    const bytes = new Uint8ClampedArray(255 * 3);
    for (let k = 0; k < 255; k += 1) {
      const place = (k / 254) * (anchors.length - 1);
      const low = Math.min(Math.floor(place), anchors.length - 2);
      for (let c = 0; c < 3; c += 1) {
        bytes[3 * k + c] = anchors[low][c] + (place - low) * (anchors[low + 1][c] - anchors[low][c]);
      }
    }
    scales.set(name, {
      bytes,
      gradient: name
        .split(" ")
        .map((hex) => `#${hex}`)
        .join(", "),
    });
  }
  return scales.get(name);
}

/** The cells as a small image, one pixel each. */
function imageOf({ values, rows, columns }, limit, weights) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const { bytes } = colours(weights);
  const [zero, most] = weights ? [0, 254] : [127, 127];
  const grey = parseInt(notFinite().slice(1, 3), 16);
  for (let k = 0; k < values.length; k += 1) {
    const value = values[k];
    const finite = Number.isFinite(value);
    // What is not zero is never drawn as zero: the least colour is one away from its.
    const shade = finite
      ? zero + Math.sign(value) * Math.max(Math.min(Math.round((Math.abs(value) / limit) * most), most), 1)
      : 0;
    for (let c = 0; c < 3; c += 1) image.data[4 * k + c] = finite ? bytes[3 * (value === 0 ? zero : shade) + c] : grey;
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Up to so many rows and columns a matrix's entries are written in its cells, where they have this much room. */
const WRITTEN = { cells: 6, width: 38, height: 17 };

/** Paint a picture on a canvas of so many CSS pixels; `limit` is the entry of the strongest colour, by default its own. */
function paint(canvas, picture, width, height, limit = cells(picture).limit) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(Math.round(width * ratio), 1);
  canvas.height = Math.max(Math.round(height * ratio), 1);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const all = cells(picture);
  if (!all.values.length) return;
  const shown = coarser(all, canvas.height, canvas.width);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(imageOf(shown, limit, picture.weights), 0, 0, canvas.width, canvas.height);
  if (picture.not_finite) markNotFinite(context, shown, canvas);
  const [rows, columns] = picture.shape;
  const few = Math.max(rows, columns) <= WRITTEN.cells && rows * columns === shown.values.length;
  if (few && width / columns >= WRITTEN.width && height / rows >= WRITTEN.height) writeEntries(context, shown, limit, ratio);
}

/** Every entry as a number in its cell, light on what is dark. */
function writeEntries(context, { values, rows, columns }, limit, ratio) {
  const [x, y] = [context.canvas.width / columns, context.canvas.height / rows];
  context.font = `${Math.round(11.5 * ratio)}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  values.forEach((value, k) => {
    if (!Number.isFinite(value)) return;
    const strong = Math.abs(value) > 0.55 * limit;
    context.fillStyle = strong !== isDark() ? "#fff" : "#000";
    context.fillText(short(value), ((k % columns) + 0.5) * x, (Math.floor(k / columns) + 0.5) * y, x - 4 * ratio);
  });
}

/** A cross on NaN and a plus on ∞, where cells are large enough to hold one. */
function markNotFinite(context, { values, rows, columns }, { width, height }) {
  const [x, y] = [width / columns, height / rows];
  const arm = Math.min(x, y) / 4;
  if (arm < 1.2) return;
  context.strokeStyle = isDark() ? "#000" : "#fff";
  context.lineWidth = Math.min(arm / 2, 3);
  context.beginPath();
  values.forEach((value, k) => {
    if (Number.isFinite(value)) return;
    const [cx, cy] = [((k % columns) + 0.5) * x, (Math.floor(k / columns) + 0.5) * y];
    const tilt = Number.isNaN(value) ? [arm, arm] : [arm * 1.3, 0];
    context.moveTo(cx - tilt[0], cy - tilt[1]);
    context.lineTo(cx + tilt[0], cy + tilt[1]);
    context.moveTo(cx + tilt[1], cy - tilt[0]);
    context.lineTo(cx - tilt[1], cy + tilt[0]);
  });
  context.stroke();
}

/** Draw again what has colours of its own, when the ground changes or the page is printed. */
function watchGround() {
  const repaint = () => repaints.forEach((action) => action());
  dark.addEventListener("change", repaint);
  window.addEventListener("beforeprint", () => {
    printing = true;
    repaint();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    repaint();
  });
}
