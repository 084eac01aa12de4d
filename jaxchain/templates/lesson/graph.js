// A small graph of a computation: round nodes with values, arrows with their partial derivatives.

const RADIUS = 17;

/** Draw it; what comes back marks arrows and nodes, and writes beside nodes. */
function graphPicture(id, { nodes, arrows }, label) {
  const svg = drawing(id, 460, 330, label);
  const place = Object.fromEntries(nodes.map((node) => [node.id, node]));
  const marker = draw("marker", { id: `${id}-tip`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerUnits: "userSpaceOnUse", markerWidth: 11, markerHeight: 11, orient: "auto-start-reverse" });
  marker.append(draw("path", { d: "M0 0 8 4 0 8z", class: "tip" }));
  svg.append(draw("defs", {}, marker));
  const lines = new Map();
  for (const { from, to, partial } of arrows) {
    const [a, b] = [place[from], place[to]];
    const length = Math.hypot(b.x - a.x, b.y - a.y);
    const [dx, dy] = [((b.x - a.x) / length) * (RADIUS + 2), ((b.y - a.y) / length) * (RADIUS + 2)];
    const line = draw("line", { class: "arrow-line", x1: a.x + dx, y1: a.y + dy, x2: b.x - dx, y2: b.y - dy, "marker-end": `url(#${id}-tip)` });
    const [x, y, words] = [a.x + (b.x - a.x) * 0.47, a.y + (b.y - a.y) * 0.47, digits(partial)];
    const under = draw("rect", { class: "under", x: x - 4 * words.length - 2, y: y - 9, width: 8 * words.length + 4, height: 18 });
    lines.set(`${from} ${to}`, { line, under, text: draw("text", { class: "partial", x, y: y + 4 }, words) });
  }
  svg.append(...[...lines.values()].map(({ line }) => line), ...[...lines.values()].flatMap(({ under, text }) => [under, text]));
  const circles = {};
  const beside = {};
  for (const { id: name, x, y, formula, primal, beside: [right, down] } of nodes) {
    const [over, under] = [y - RADIUS - 7, y + RADIUS + 16]; // one for the formula, one for what a sweep writes
    circles[name] = draw("circle", { class: "node", cx: x, cy: y, r: RADIUS });
    beside[name] = draw("text", { class: "beside", x, y: down < 0 ? under : over });
    const value = formula === name ? digits(primal) : `${formula} = ${digits(primal)}`;
    svg.append(circles[name], draw("text", { class: "node-name", x, y: y + 4.5 }, name), draw("text", { class: "value", x: x + right, y: y + down }, value), beside[name]);
  }
  const markArrows = (keys) => lines.forEach(({ line, text }, key) => [line, text].forEach((part) => part.classList.toggle("marked", keys.includes(key))));
  const markNodes = (names) => Object.entries(circles).forEach(([name, circle]) => circle.classList.toggle("marked", names.includes(name)));
  return { svg, markArrows, markNodes, write: (name, text) => say(beside[name], text) };
}
