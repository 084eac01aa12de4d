// The computational graph: drawn from places that are in the data, stepped through, and asked for paths.

const BOX = { width: 204, height: 86, across: 292, up: 106, margin: 14 };
/** Up to so many letters a matrix is written on its arrow; beyond, it is a small picture. */
const LABEL = 10;
const WAYS_OF = { forward: ["tangent", "→"], reverse: ["cotangent", "←"] };

function startGraph() {
  const { graphs } = data.graph;
  if (!graphs.length) return;
  const state = { graph: 0, way: null, step: 0, ends: [], trail: [] };
  const show = (change) => {
    Object.assign(state, change);
    drawGraph(state, show);
  };
  const fresh = { way: null, step: 0, ends: [] };
  const go = (by) => {
    const way = state.way ?? "forward";
    const last = graphs[state.graph][way].length;
    show({ way, ends: [], step: Math.min(Math.max(state.way ? state.step + by : Math.max(by, 0), 0), last) });
  };
  for (const way of ["forward", "reverse"])
    byId(`graph-${way}`).addEventListener("click", () => show({ ...fresh, way, step: 1 }));
  byId("graph-previous").addEventListener("click", () => go(-1));
  byId("graph-next").addEventListener("click", () => go(1));
  byId("graph-all").addEventListener("click", () => show(fresh));
  byId("graph-out").addEventListener("click", () => show({ ...fresh, graph: state.trail.pop() }));
  byId("graph").addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(moves[event.key]);
  });
  follow(["stage"], () => drawGraph(state, show));
  repaints.push(() => drawGraph(state, show));
  show({});
}

const placeOn = ([x, y], [, height]) => [
  BOX.margin + BOX.width / 2 + x * BOX.across,
  BOX.margin + BOX.height / 2 + (height - y) * BOX.up,
];

function drawGraph(state, show) {
  const graph = data.graph.graphs[state.graph];
  const marks = marksOf(graph, state);
  const width = 2 * BOX.margin + BOX.width + graph.size[0] * BOX.across;
  const height = 2 * BOX.margin + BOX.height + graph.size[1] * BOX.up;
  const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "graph", role: "group", "aria-label": graph.title });
  graph.arrows.forEach((arrow, k) => svg.append(arrowOf(graph, arrow, marks.arrows.has(k))));
  const nodes = graph.nodes.map((node, k) => nodeOf(graph, node, k, marks, state, show));
  svg.append(...nodes);
  const focused = document.activeElement?.dataset?.node;
  const [left, top] = [byId("graph").scrollLeft, byId("graph").scrollTop];
  byId("graph").replaceChildren(svg);
  byId("graph").scrollTo(left, top);
  if (focused !== undefined) svg.querySelector(`[data-node="${focused}"]`)?.focus();
  tellGraph(graph, state, marks);
}

/** What is marked: the arrows of a step or of paths, and the nodes whose derivative is known by then. */
function marksOf(graph, { way, step, ends }) {
  if (ends.length === 2) {
    const found = graph.between?.[ends.join(" ")];
    return { arrows: new Set((found?.paths ?? []).flatMap((path) => path.arrows)), known: null, found };
  }
  if (!way) return { arrows: new Set(), known: null };
  const done = graph[way].slice(0, step);
  return { arrows: new Set(done.at(-1)?.arrows), known: new Set(done.map(({ node }) => node)), now: done.at(-1)?.node };
}

function nodeOf(graph, node, k, marks, state, show) {
  const [x, y] = placeOn(node.place, graph.size);
  const chosen = state.ends.includes(k) || marks.now === k;
  const here = node.stage !== null && node.stage === selection.stage;
  const title = [node.label, node.name, node.formula].filter(Boolean).join(" = ");
  const known = (way) => !state.way || (way === state.way && (!marks.known || marks.known.has(k)));
  const values = ["forward", "reverse"].map((way) => ({ way, text: node[WAYS_OF[way][0]] }));
  const lines = [
    { text: brief(title, node.inside === null ? 27 : 22), kind: "formula" }, // room for the sign that opens it
    { text: `= ${node.primal}`, kind: "primal" },
    ...values.map(({ way, text }) => ({
      text: !known(way) || text === null ? "" : way === "forward" ? `tangent ${text} →` : `← cotangent ${text}`,
      kind: way,
    })),
  ];
  const pick = () => {
    const ends = state.ends.length === 1 && state.ends[0] !== k ? [state.ends[0], k].sort((a, b) => a - b) : [k];
    if (node.stage !== null) takeStage(node.stage);
    show({ way: null, step: 0, ends });
  };
  const attributes = {
    class: `node${chosen ? " chosen" : ""}${here ? " here" : ""}${node.inside === null ? "" : " fold"}`,
    transform: `translate(${x - BOX.width / 2} ${y - BOX.height / 2})`,
    role: "button",
    tabindex: "0",
    "data-node": k,
    "aria-pressed": String(state.ends.includes(k)),
    "aria-label": lines.map(({ text }) => text).join(" "), // what is seen, word for word
    onclick: pick,
  };
  const line = ({ text, kind }, row) =>
    text ? draw("text", { x: BOX.width / 2, y: 18 + 20 * row, class: kind }, text) : null;
  const group = draw(
    "g",
    attributes,
    draw("title", {}, `${title}\n${node.source}`),
    draw("rect", { width: BOX.width, height: BOX.height, rx: 5 }),
    lines.map(line),
  );
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    pick();
  });
  if (node.inside === null) return group;
  return draw("g", {}, group, opener(node, x, y, state, show));
}

/** The sign that opens a fold into its own graph. */
function opener(node, x, y, state, show) {
  const open = () => {
    show({ graph: node.inside, trail: [...state.trail, state.graph], way: null, step: 0, ends: [] });
    byId("graph-out").focus();
  };
  const sign = draw(
    "g",
    {
      class: "opener",
      role: "button",
      tabindex: "0",
      "aria-label": `Open ${node.name}`,
      transform: `translate(${x + BOX.width / 2 - 2} ${y - BOX.height / 2 + 2})`,
      onclick: open,
    },
    draw("title", {}, `Open ${node.formula}`),
    draw("circle", { r: 12 }),
    draw("text", { y: 5 }, "+"),
  );
  sign.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    open();
  });
  return sign;
}

/** A line that leaves and enters boxes at their sides, its partial derivative on its first piece. */
function arrowOf(graph, arrow, marked) {
  const points = arrow.route.map((point) => placeOn(point, graph.size));
  points[0][0] += BOX.width / 2;
  points.at(-1)[0] -= BOX.width / 2 + 4;
  let path = `M${points[0]}`;
  for (let k = 1; k < points.length; k += 1) {
    const [[x, y], [toX, toY]] = [points[k - 1], points[k]];
    path += ` C${(x + toX) / 2} ${y} ${(x + toX) / 2} ${toY} ${toX} ${toY}`;
  }
  const [endX, endY] = points.at(-1);
  const [x, y] = [(points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2];
  const names = `∂${graph.nodes[arrow.to].name}/∂${graph.nodes[arrow.from].name}`;
  return draw(
    "g",
    { class: `arrow${marked ? " marked" : ""}` },
    draw("title", {}, `${names}: ${arrow.words}`),
    draw("path", { d: path }),
    draw("path", { class: "head", d: `M${endX + 4} ${endY} l-8 -4 v8 z` }),
    arrow.cells && !(arrow.text.startsWith("[") && arrow.text.length <= LABEL) ? thumbOf(arrow.cells, x, y) : labelOf(arrow.text, x, y),
  );
}

function labelOf(text, x, y) {
  const width = 7.4 * text.length + 8;
  return draw(
    "g",
    {},
    draw("rect", { x: x - width / 2, y: y - 9, width, height: 18, class: "ground" }),
    draw("text", { x, y: y + 4 }, text),
  );
}

/** A matrix in a few cells, of the colours of all Jacobians. */
function thumbOf(cellsOf, x, y) {
  const [rows, columns] = [cellsOf.length, cellsOf[0].length];
  const side = Math.min(36 / rows, 44 / columns, 12);
  const [width, height] = [side * columns, side * rows];
  const { bytes } = colours();
  const fill = (value) => value === null ? notFinite() : `rgb(${bytes.slice(3 * (127 + Math.round(1.27 * value)), 3 * (127 + Math.round(1.27 * value)) + 3)})`;
  const pixels = cellsOf.flatMap((row, i) =>
    row.map((value, j) => draw("rect", { x: j * side, y: i * side, width: side, height: side, fill: fill(value) })),
  );
  const frame = draw("rect", { width, height, class: "frame" });
  return draw("g", { transform: `translate(${x - width / 2} ${y - height / 2})`, class: "thumb" }, pixels, frame);
}

/** In words: the arithmetic of a step, or the paths between two nodes and their sum. */
function tellGraph(graph, { way, step, ends, trail }, { found }) {
  byId("graph-out").hidden = !trail.length;
  for (const one of ["forward", "reverse"]) byId(`graph-${one}`).setAttribute("aria-pressed", String(one === way));
  byId("graph-previous").disabled = !way || step === 0;
  byId("graph-next").disabled = Boolean(way) && step >= graph[way].length;
  byId("graph-paths").replaceChildren(
    ...(found?.paths ?? []).map(({ arrows, text }) => {
      const nodes = [graph.arrows[arrows[0]].from, ...arrows.map((k) => graph.arrows[k].to)];
      return make("li", {}, `${nodes.map((k) => graph.nodes[k].name).join(" → ")}: `, make("code", {}, text));
    }),
  );
  byId("graph-says").replaceChildren(...sayings(graph, { way, step, ends }, found));
}

function sayings(graph, { way, step, ends }, found) {
  const name = (k) => graph.nodes[k].label || graph.nodes[k].name;
  if (ends.length === 2) {
    const derivative = `∂${name(ends[1])}/∂${name(ends[0])}`;
    if (!graph.between) return [`${derivative}: so large a graph's paths are told by jc.graph(fun, *args).paths(…).`];
    if (!found) return [`No path leads from ${name(ends[0])} to ${name(ends[1])}: ${derivative} = 0.`];
    const told = found.paths.length < found.number ? `, the first ${found.paths.length} below` : "";
    return [`${derivative} is the sum over ${plural(found.number, "path")}${told}: `, make("code", {}, found.text)];
  }
  if (ends.length === 1) return [`From or to ${name(ends[0])}: choose the other node.`];
  if (!way) return [`${graph.title}: ${plural(graph.nodes.length, "node")}, ${plural(graph.arrows.length, "arrow")}.`];
  if (!step) return [`0 of ${graph[way].length}: no ${WAYS_OF[way][0]} is known yet.`];
  const { node, text } = graph[way][step - 1];
  return [`${step} of ${graph[way].length}: the ${WAYS_OF[way][0]} of ${name(node)}, `, make("code", {}, text)];
}
