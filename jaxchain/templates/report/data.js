// The page's data: one compressed block, unpacked once; the numbers of a picture only when it is first drawn.

let data = null;

async function unpack() {
  const bytes = decode(byId("data").textContent.trim());
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  data = await new Response(stream).json();
  byId("data").remove();
}

/** Unpack, then draw; where that cannot be, say so and leave the tables. */
async function begin(draw) {
  try {
    await unpack();
  } catch (error) {
    console.error(error);
    const message = byId("message");
    say(
      message,
      "This browser cannot unpack the page’s data (it needs DecompressionStream), so only the tables are shown.",
    );
    message.hidden = false;
    return;
  }
  document.documentElement.classList.add("drawn");
  draw();
  document.documentElement.dataset.ready = "true";
}

function decode(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let k = 0; k < letters.length; k += 1) bytes[k] = letters.charCodeAt(k);
  return bytes;
}

const kept = new WeakMap();

/** The cells of a picture and the colour limit: the 99.5th percentile of what is finite and not zero; of weights one. */
function cells(picture) {
  if (!kept.has(picture)) {
    const view = new DataView(decode(picture.values).buffer);
    const [size, getter] = picture.double ? [8, "getFloat64"] : [4, "getFloat32"];
    const values = new (picture.double ? Float64Array : Float32Array)(view.byteLength / size);
    for (let k = 0; k < values.length; k += 1) values[k] = view[getter](size * k, true);
    const strengths = values
      .filter((value) => value !== 0 && Number.isFinite(value))
      .map(Math.abs)
      .sort();
    const last = strengths.length - 1;
    const limit = last < 0 || picture.weights ? 1 : between(strengths, 0.995 * last);
    const largest = last < 0 ? 0 : strengths[last];
    const clipped = largest > limit && !picture.weights;
    kept.set(picture, { values, limit, largest, clipped, rows: picture.cells[0], columns: picture.cells[1] });
  }
  return kept.get(picture);
}

function between(sorted, place) {
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}

/** Coarser cells, where a picture has more than its pixels can show: each the largest |J| of its block. */
function coarser({ values, rows, columns }, mostRows, mostColumns) {
  const height = Math.min(rows, mostRows);
  const width = Math.min(columns, mostColumns);
  if (height === rows && width === columns) return { values, rows, columns };
  const result = new values.constructor(height * width);
  for (let i = 0; i < rows; i += 1) {
    const row = Math.floor((i * height) / rows) * width;
    for (let j = 0; j < columns; j += 1) {
      const place = row + Math.floor((j * width) / columns);
      const value = values[i * columns + j];
      if (!(Math.abs(value) <= Math.abs(result[place])) && !Number.isNaN(result[place])) result[place] = value;
    }
  }
  return { values: result, rows: height, columns: width };
}
