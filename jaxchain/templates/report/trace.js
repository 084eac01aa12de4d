// The evaluation trace: an operation a row, groups folded; values run down, cotangents up.

/** What is shown of a row, `most` characters wide; a `wanted` column only where some row has it. */
const COLUMNS = [
  { key: "name", word: "name", most: 28 },
  { key: "formula", word: "operation", most: 56 },
  { key: "source", word: "source", most: 26, wanted: true },
  { key: "primal", word: "primal ↓", most: 34 },
  { key: "tangent", word: "tangent ↓", most: 34, mode: "forward" },
  { key: "cotangent", word: "cotangent ↑", most: 34, mode: "reverse" },
];

function startTrace() {
  const { rows } = data.trace;
  const root = byId("trace");
  if (!rows.length) {
    root.replaceChildren();
    return;
  }
  const open = new Set();
  const ends = endsOf(rows);
  let shown = [];
  const box = make("div", { class: "scroll trace", tabindex: "0", role: "table", "aria-label": "Evaluation trace" });
  const columns = COLUMNS.filter(({ key, wanted }) => !wanted || rows.some((row) => row[key]));
  const head = columns.map(({ word, mode }) => make("span", { role: "columnheader", class: mode }, word));
  box.append(make("div", { role: "rowgroup", class: "head" }, make("div", { role: "row", class: "line" }, head)));
  root.replaceChildren(box);
  const widths = columns.map((column) => widthOf(column, rows));
  box.style.setProperty("--columns", widths.map((width) => `${width}ch`).join(" "));
  box.style.setProperty("--shares", widths.map((width) => `minmax(0, ${width}fr)`).join(" "));
  const turn = (k) => {
    if (!open.delete(k)) open.add(k);
    refold();
    box.querySelector(`[data-row="${k}"]`)?.focus();
  };
  const list = longList(box, {
    height: 22,
    count: () => shown.length,
    attributes: { role: "rowgroup" },
    line: (at) => traceRow(columns, rows[shown[at]], shown[at], open.has(shown[at]), turn),
  });

  function refold() {
    shown = [];
    for (let k = 0; k < rows.length; k = rows[k].fold && !open.has(k) ? ends[k] : k + 1) shown.push(k);
    box.setAttribute("aria-rowcount", String(shown.length + 1));
    list.render();
  }
  const folds = rows.map((row, k) => (row.fold ? k : -1)).filter((k) => k >= 0);
  const all = (what) => () => {
    open.clear();
    if (what) folds.forEach((k) => open.add(k));
    refold();
  };
  const button = (word, action) => make("button", { type: "button", class: "tab", onclick: action }, word);
  if (folds.length)
    byId("trace-buttons").replaceChildren(
      button("unfold all", all(true)),
      " ",
      button("fold all", all(false)),
      make("span", { class: "hint" }, ` ${plural(rows.length, "row")}`),
    );
  refold();
  const reveal = () => {
    const at = shown.findIndex((k) => rows[k].stage === selection.stage);
    if (at < 0) list.render();
    else list.reveal(at);
  };
  reveal();
  follow(["stage"], reveal);
}

/** For each row, the first one after it that is not among its children. */
function endsOf(rows) {
  const ends = new Array(rows.length);
  const waiting = [];
  rows.forEach(({ depth }, k) => {
    while (waiting.length && rows[waiting.at(-1)].depth >= depth) ends[waiting.pop()] = k;
    waiting.push(k);
  });
  for (const k of waiting) ends[k] = rows.length;
  return ends;
}

/** As wide as its longest text, within reason. */
function widthOf({ key, most }, rows) {
  const indent = (row) => (key === "name" ? 2 * row.depth + 2 : 0);
  return (
    Math.min(
      rows.reduce((length, row) => Math.max(length, indent(row) + (row[key] ?? "").length), 9),
      most,
    ) + 2
  );
}

function traceRow(columns, row, k, isOpen, turn) {
  const here = row.stage !== null && row.stage === selection.stage;
  const attributes = {
    role: "row",
    class: `line${here ? " selected" : ""}${row.stage === null ? "" : " pick"}`,
    "data-stage": row.stage,
  };
  if (row.stage !== null) attributes.onclick = () => takeStage(row.stage);
  const name = make("span", { role: "cell", class: "cell-name" });
  name.style.paddingLeft = `${2 * row.depth}ch`;
  if (row.fold) {
    const act = (event) => {
      event.stopPropagation();
      turn(k);
    };
    const words = {
      type: "button",
      class: "fold",
      "data-row": k,
      "aria-expanded": String(isOpen),
      "aria-label": `${isOpen ? "Fold" : "Unfold"} ${row.name}`,
    };
    name.append(make("button", { ...words, onclick: act }, isOpen ? "▾" : "▸"));
  } else name.append(make("span", { class: "gutter", "aria-hidden": "true" }, here ? "▪" : ""));
  name.append(row.name);
  const rest = columns
    .slice(1)
    .map(({ key }) => make("span", { role: "cell", title: row[key] || null }, row[key] ?? ""));
  return make("div", attributes, name, rest);
}
