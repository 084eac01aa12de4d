// The evaluation trace: an operation a row, groups folded; values run down, cotangents up.

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
  const head = ["", "operation", "source", "primal ↓", "tangent ↓", "cotangent ↑"].map((word, k) =>
    make("span", { role: "columnheader", class: ["", "", "", "", "forward", "reverse"][k] }, word || "name"),
  );
  box.append(make("div", { role: "rowgroup", class: "head" }, make("div", { role: "row", class: "line" }, head)));
  root.replaceChildren(box);
  box.style.setProperty("--columns", widths(rows));
  const turn = (k) => {
    if (!open.delete(k)) open.add(k);
    refold();
    box.querySelector(`[data-row="${k}"]`)?.focus();
  };
  const list = longList(box, {
    height: 22,
    count: () => shown.length,
    attributes: { role: "rowgroup" },
    line: (at) => traceRow(rows[shown[at]], shown[at], open.has(shown[at]), turn),
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

/** Columns as wide as their longest text, within reason. */
function widths(rows) {
  const longest = (text) => rows.reduce((length, row) => Math.max(length, text(row).length), 9);
  const column = (text, most) => `${Math.min(longest(text), most) + 2}ch`;
  const name = column((row) => " ".repeat(2 * row.depth + 2) + row.name, 28);
  const values = ["primal", "tangent", "cotangent"].map((key) => column((row) => row[key] ?? "", 34));
  return [name, column((row) => row.formula, 56), column((row) => row.source, 26), ...values].join(" ");
}

function traceRow(row, k, isOpen, turn) {
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
  const cell = (text) => make("span", { role: "cell", title: text || null }, text ?? "");
  return make(
    "div",
    attributes,
    name,
    cell(row.formula),
    cell(row.source),
    cell(row.primal),
    cell(row.tangent),
    cell(row.cotangent),
  );
}
