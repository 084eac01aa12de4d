// One matrix to read: a heat map with a crosshair, by pointer or arrow keys, that names every entry.

const HAIRLINE = 24;
const BLOCK_ROOM = 6;

/**
 * Makes the heat map of a `figure.heat`; the result shows a picture with words for its axes.
 * `output` is where the entry under the crosshair is written. `aimed(cell)` is told where a person moves it to, and
 * the result's `aim(cell)` moves it from elsewhere.
 */
function heatMap(root, output, { widest, tallest, aimed = () => {} }) {
  const [frame, canvas] = [root.querySelector(".heat-frame"), root.querySelector("canvas")];
  let shown = null;
  let cell = null;

  function render() {
    const { picture, place } = shown;
    if (picture) paint(canvas, picture, place.width, place.height);
    if (picture?.ruled) rule(canvas, picture.ruled);
    if (picture && cell) crosshair(canvas, picture, cell);
  }

  function size({ shape: [m, n] }) {
    const room = Math.min(widest, root.clientWidth - 2);
    const scale = Math.min(room / n, tallest / m, Math.max(m, n) <= WRITTEN.cells ? 52 : 40);
    const [width, height] = [n * scale, m * scale].map((side) => Math.round(Math.max(side, HAIRLINE)));
    return { width, height, stretched: Math.min(n, m) * scale < HAIRLINE - 1 };
  }

  function aim(next) {
    if (!shown?.picture?.values) return;
    cell = next;
    render();
    describe(output, shown.picture, cell);
  }

  function aimHere(next) {
    aim(next);
    aimed(next);
  }

  function show(picture, { rows, columns, label, hint }) {
    const same = shown && shown.label === label && cell && picture && inside(cell, picture);
    shown = { picture, label, place: picture ? size(picture) : null };
    root.classList.toggle("empty", !picture);
    frame.hidden = !picture;
    say(frame.querySelector(".y-axis"), rows);
    say(frame.querySelector(".x-axis"), columns);
    canvas.setAttribute("aria-label", label);
    if (!same) cell = null;
    drawScale(root.querySelector(".scale"), picture, shown.place);
    if (cell) aim(cell);
    else {
      for (const key of ["row", "column", "value"]) delete output.dataset[key];
      say(output, picture?.values ? hint : "");
      render();
    }
  }

  const at = (event) => {
    const bounds = canvas.getBoundingClientRect();
    const [rows, columns] = shown.picture.cells;
    const clamp = (part, count) => Math.min(Math.max(Math.floor(part * count), 0), count - 1);
    return [
      clamp((event.clientY - bounds.top) / bounds.height, rows),
      clamp((event.clientX - bounds.left) / bounds.width, columns),
    ];
  };
  canvas.addEventListener(
    "pointermove",
    eachFrame((event) => shown?.picture && aimHere(at(event))),
  );
  canvas.addEventListener("pointerdown", (event) => shown?.picture && aimHere(at(event)));
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!moves[event.key] || !shown?.picture || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = cell ? cell.map((place, k) => place + moves[event.key][k]) : [0, 0];
    if (inside(next, shown.picture)) aimHere(next);
  });
  canvas.addEventListener("focus", () => !cell && canvas.matches(":focus-visible") && aimHere([0, 0]));
  repaints.push(() => {
    if (!shown) return;
    if (shown.picture) shown.place = size(shown.picture);
    drawScale(root.querySelector(".scale"), shown.picture, shown.place);
    render();
  });
  show.aim = aim;
  return show;
}

/** "output (8)"; where numbers are complex, how their parts are laid out. */
const axisWords = (word, count, { complex }) =>
  `${word} (${count}${complex ? ", complex: real parts, then imaginary parts" : ""})`;

const inside = ([row, column], { cells: [rows, columns] }) => row >= 0 && column >= 0 && row < rows && column < columns;

/** Name the entry, or the block whose largest entry it is. */
function describe(output, picture, cell) {
  const { row, column, digits, place, block, text } = entryOf(picture, cell);
  Object.assign(output.dataset, { row, column, value: digits });
  say(output, `${place} ${block ? "largest" : "="} ${text}`);
}

/** The entry that a cell shows: where it is, in numbers and in words, and what it is. */
function entryOf(picture, [row, column]) {
  const value = cells(picture).values[row * picture.cells[1] + column];
  const [rows, columns] = picture.shape;
  const stop = (starts, k, count) => (k + 1 < starts.length ? starts[k + 1] : count) - 1;
  // Where only some columns were computed, the columns between them have not been seen.
  const last = picture.sampled ? picture.columns[column] : stop(picture.columns, column, columns);
  const name = (word, from, to) => (from === to ? `${word} ${from}` : `${word}s ${from}–${to}`);
  const [lastRow, firstRow, first] = [stop(picture.rows, row, rows), picture.rows[row], picture.columns[column]];
  const digits = exact(value, picture.double);
  return {
    row: firstRow,
    column: first,
    digits,
    place: placeIn(picture, (word) => name(word, firstRow, lastRow), (word) => name(word, first, last)),
    block: lastRow > firstRow || last > first,
    text: Number.isFinite(value) ? digits.replace("-", MINUS) : odd(value),
  };
}

/** What an entry is called, by words for its row and its column. */
function placeIn({ positions, weights }, row, column) {
  if (weights) return `${row("query")} on ${column("key")}`;
  return positions ? `‖∂ ${row("position")} / ∂ ${column("position")}‖` : `∂ ${row("output")} / ∂ ${column("input")}`;
}

/** Fine lines between blocks, where those have room. */
function rule(canvas, [rows, columns]) {
  const { width, height } = canvas;
  const line = Math.max(Math.round(window.devicePixelRatio || 1), 1);
  if (Math.min(width / columns, height / rows) < BLOCK_ROOM * line) return;
  const context = canvas.getContext("2d");
  context.fillStyle = isDark() ? "rgba(255, 255, 255, .25)" : "rgba(0, 0, 0, .22)";
  for (let k = 1; k < columns; k += 1) context.fillRect(Math.round((k * width) / columns), 0, line, height);
  for (let k = 1; k < rows; k += 1) context.fillRect(0, Math.round((k * height) / rows), width, line);
}

function crosshair(canvas, picture, [row, column]) {
  const context = canvas.getContext("2d");
  const [x, y] = [canvas.width / picture.cells[1], canvas.height / picture.cells[0]];
  context.lineWidth = window.devicePixelRatio || 1;
  context.strokeStyle = isDark() ? "rgba(255, 255, 255, .8)" : "rgba(0, 0, 0, .75)";
  context.beginPath();
  context.moveTo(0, (row + 0.5) * y);
  context.lineTo(column * x - 2, (row + 0.5) * y);
  context.moveTo((column + 1) * x + 2, (row + 0.5) * y);
  context.lineTo(canvas.width, (row + 0.5) * y);
  context.moveTo((column + 0.5) * x, 0);
  context.lineTo((column + 0.5) * x, row * y - 2);
  context.moveTo((column + 0.5) * x, (row + 1) * y + 2);
  context.lineTo((column + 0.5) * x, canvas.height);
  context.stroke();
  context.strokeRect(column * x - 1, row * y - 1, x + 2, y + 2);
}

/** The colour bar: limits with numbers, arrows where entries lie beyond them, and what grey means. */
function drawScale(root, picture, place) {
  if (!picture || !picture.values) return root.replaceChildren();
  const { limit, clipped } = cells(picture);
  const bar = make("span", { class: "bar-colours", "aria-hidden": "true" });
  bar.style.background = `linear-gradient(to right, ${colours(picture.weights).gradient})`;
  const low = picture.weights ? 0 : -limit;
  const ends = [`${clipped ? "◂ " : ""}${short(low)}`, `${short(limit)}${clipped ? " ▸" : ""}`];
  const grey = picture.not_finite
    ? make(
        "span",
        { class: "grey" },
        make("span", { class: "swatch odd-swatch", "aria-hidden": "true" }, "×"),
        ` ${plural(picture.not_finite, "entry").replace("entrys", "entries")} not finite`,
      )
    : "";
  root.replaceChildren(
    make(
      "span",
      { title: clipped ? "Some entries lie beyond: the scale ends at the 99.5th percentile." : full(low) },
      ends[0],
    ),
    bar,
    make("span", { title: full(limit) }, ends[1]),
    grey,
    place.stretched ? make("span", {}, "cells stretched, to be seen") : "",
  );
}
