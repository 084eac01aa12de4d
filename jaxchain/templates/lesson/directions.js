// Both sweeps over the same graph, a node at a time; then how many sweeps a function takes.

pictures.directions = (values) => {
  const id = "directions-graph";
  let way = 0;
  let go = null;
  buttons(id, "Which sweep", ["forward from x1", "forward from x2", "reverse from y"], (k) => {
    way = k;
    go(0);
  });
  const graph = graphPicture(id, values.graph, "The same graph, with tangents or cotangents written above its nodes as a sweep reaches them");
  const arrow = () => (way < 2 ? "→" : "←");
  go = stepper(id, () => values.steps[way].length, (step) => {
    const steps = values.steps[way];
    graph.svg.classList.toggle("back", way === 2);
    for (const { id: name } of values.graph.nodes) graph.write(name, "");
    steps.slice(0, step).forEach(({ node, value }) => graph.write(node, `${arrow()} ${digits(value)}`));
    graph.markNodes(step ? [steps[step - 1].node] : []);
    graph.markArrows(step ? steps[step - 1].arrows : []);
    if (!step) return way < 2 ? "Press Next: tangents are filled in from the left." : "Press Next: cotangents are filled in from the right.";
    const done = step < steps.length ? "" : way < 2 ? ` Done: one forward sweep has found ∂y/∂${["x1", "x2"][way]}, and only that.` : " Done: one reverse sweep has found both ∂y/∂x1 and ∂y/∂x2.";
    return toldOf(steps[step - 1], way) + done;
  });
  countSweeps();
};

/** One step in words: the sum over its arrows, or what was chosen before the walk began. */
function toldOf({ node, text, value, given }, way) {
  if (!given) return `${node}: ${text}.`;
  if (way < 2) return `${node} moves at speed ${digits(value)}: we chose so.`;
  return `${node} moves by 1 for each 1 that it is moved: the walk begins with 1.`;
}

function countSweeps() {
  const id = "directions-count";
  const counts = [1, 2, 10, 100, 784, 10000, 1000000];
  const chosen = { n: 6, m: 0 };
  const svg = drawing(id, 420, 96, "Two bars: how many sweeps forward and reverse take");
  const bars = ["forward", "reverse"].map((name, k) => {
    const bar = draw("rect", { class: `sweeps ${name}`, x: 86, y: 12 + 42 * k, height: 22 });
    const text = draw("text", { y: 28 + 42 * k });
    svg.append(draw("text", { x: 0, y: 28 + 42 * k }, name), bar, text);
    return { bar, text };
  });
  const show = () => {
    const sweeps = [counts[chosen.n], counts[chosen.m]];
    bars.forEach(({ bar, text }, k) => {
      const width = 8 + Math.log10(sweeps[k]) * 38;
      bar.setAttribute("width", width);
      text.setAttribute("x", 94 + width);
      say(text, digits(sweeps[k]));
    });
  };
  slider(id, "Inputs", counts.length - 1, chosen.n, (k) => {
    chosen.n = k;
    show();
    return `${plural(counts[k], "input")}: ${plural(counts[k], "forward sweep")}, one tangent each.`;
  });
  slider(id, "Outputs", counts.length - 1, chosen.m, (k) => {
    chosen.m = k;
    show();
    return `${plural(counts[k], "output")}: ${plural(counts[k], "reverse sweep")}, one cotangent each.`;
  });
}
