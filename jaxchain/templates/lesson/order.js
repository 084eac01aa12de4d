// The product of an hourglass's Jacobians, drawn to scale, multiplied step by step in three orders.

pictures.order = (values) => {
  const id = "order-product";
  const modes = ["forward", "reverse", "planned"];
  let mode = modes[0];
  let go = null;
  buttons(id, "Which order", ["forward", "reverse", "from the waist"], (k) => {
    mode = modes[k];
    go(0);
  });
  const svg = drawing(id, 460, 156, "The Jacobians as rectangles drawn to scale, the output’s on the left");
  go = stepper(id, () => values.ways[mode].length, (step) => {
    const steps = values.ways[mode];
    drawProduct(svg, values, steps.slice(0, step), mode);
    if (!step) return `${plural(values.names.length, "Jacobian")}, not multiplied yet. Press Next.`;
    const { shape, cost } = steps[step - 1];
    const total = steps.slice(0, step).reduce((sum, each) => sum + each.cost, 0);
    const done = step === steps.length ? " That is the whole Jacobian." : "";
    return `Step ${step}: a table of ${shape[0]}×${shape[1]} is known now, for ${plural(Math.round(cost), "multiply-add")}; ${digits(Math.round(total))} so far.${done}`;
  });
  drawCosts(values);
};

/** Each factor by the states that it spans; a step replaces those inside its span by one. */
function drawProduct(svg, { names, sizes }, done, mode) {
  let factors = names.map((name, k) => ({ from: k, to: k + 1, known: false }));
  for (const { from, to } of done) factors = [...factors.filter((factor) => factor.from < from || factor.to > to), { from, to, known: true }].sort((a, b) => a.from - b.from);
  const unit = 1;
  const gap = 18;
  const shown = factors.reverse();
  const width = shown.reduce((sum, { from }) => sum + Math.max(sizes[from] * unit, 3), 0) + gap * (shown.length - 1);
  let x = (460 - width) / 2;
  svg.replaceChildren();
  shown.forEach(({ from, to, known }, k) => {
    const [w, h] = [Math.max(sizes[from] * unit, 3), Math.max(sizes[to] * unit, 3)];
    if (k) svg.append(draw("text", { class: "middle", x: x - gap / 2, y: 58 }, "·"));
    svg.append(draw("rect", { class: known ? `block known ${mode}` : "block", x, y: 54 - h / 2, width: w, height: h }));
    if (!known && sizes[from] === sizes[to]) svg.append(draw("line", { class: "diagonal", x1: x, y1: 54 - h / 2, x2: x + w, y2: 54 + h / 2 }));
    svg.append(draw("text", { class: "tick middle", x: x + w / 2, y: k % 2 ? 144 : 126 }, `${sizes[to]}×${sizes[from]}`));
    x += w + gap;
  });
}

function drawCosts({ costs }) {
  const id = "order-costs";
  const svg = drawing(id, 460, 116, "Three bars: the multiply-adds of each order");
  const most = Math.max(...Object.values(costs));
  Object.entries(costs).forEach(([mode, cost], k) => {
    const y = 8 + 38 * k;
    const width = (cost / most) * 220;
    svg.append(draw("text", { x: 0, y: y + 16 }, mode === "planned" ? "from the waist" : mode), draw("rect", { class: `sweeps ${mode}`, x: 106, y, width, height: 22 }), draw("text", { x: 114 + width, y: y + 16 }, digits(Math.round(cost))));
  });
}
