// The graph with one path lit at a time, or all from one input: products along paths, and their sum.

pictures.paths = (values) => {
  const id = "paths-graph";
  const starts = Object.keys(values.paths);
  const choices = starts.flatMap((start) => [...values.paths[start].rows.map((path) => ({ start, path })), { start, path: null }]);
  const names = choices.map(({ start, path }) => (path ? path.nodes.join(" → ") : `all paths from ${start}`));
  const keysOf = ({ nodes }) => nodes.slice(1).map((node, k) => `${nodes[k]} ${node}`);
  const row = buttons(id, "Which path", names, (k) => show(choices[k]));
  row.classList.add("few");
  const graph = graphPicture(id, values.graph, "The graph of y = ln x1 + x1·x2 − sin x2: seven nodes and eight arrows");
  const said = make("p", { class: "said", role: "status" });
  placeOf(id).append(said);
  const show = ({ start, path }) => {
    const shown = path ? [path] : values.paths[start].rows;
    graph.markArrows(shown.flatMap(keysOf));
    graph.markNodes(shown.flatMap(({ nodes }) => nodes));
    const products = shown.map(({ text }) => text).join(", and ");
    say(said, path ? `Along this path: ${products}.` : `Along the paths: ${products}. Their sum is ∂y/∂${start}: ${values.paths[start].text}.`);
  };
  show(choices[0]);
};
