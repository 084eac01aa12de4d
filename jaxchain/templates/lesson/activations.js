// Three activations with their slopes under a slider; and the norms of cotangents through twenty layers.

pictures.activations = (values) => {
  const id = "activations-curves";
  const across = { from: -3, to: 3, ticks: [-3, -2, -1, 0, 1, 2, 3], label: "h" };
  const panels = make("div", { class: "panels" });
  placeOf(id).append(panels);
  const marks = Object.entries(values.curves).map(([name, [bend, slope]]) => {
    const own = make("div", { class: "drawn-here" });
    panels.append(make("div", { id: `${id}-${name}` }, make("p", { class: "card-name" }, name), own));
    const plot = plotting(`${id}-${name}`, 220, 232, `${name}, and its slope as a dashed line`, across, { from: -1.1, to: 3, ticks: [-1, 0, 1, 2, 3], label: "" });
    plot.line(values.h, bend, "state");
    plot.line(values.h, slope, "reverse dashed");
    const dots = ["state", "reverse"].map((kind) => draw("circle", { class: `dot ${kind}`, r: 5 }));
    plot.svg.append(...dots);
    return (k) => [bend, slope].forEach((list, line) => {
      dots[line].setAttribute("cx", plot.x(values.h[k]));
      dots[line].setAttribute("cy", plot.y(list[k]));
    });
  });
  slider(id, "Move h", values.h.length - 1, 80, (k) => {
    marks.forEach((mark) => mark(k));
    const slopes = Object.entries(values.curves).map(([name, [, slope]]) => `${name} ${digits(slope[k], 3)}`);
    return `At h = ${digits(values.h[k])} the slopes are: ${slopes.join(", ")}.`;
  });
  twentyLayers(values.twenty);
};

function twentyLayers(twenty) {
  const id = "activations-twenty";
  const names = Object.keys(twenty);
  const passed = [...twenty[names[0]].keys()];
  const ticks = [-12, -9, -6, -3, 0, 3].map((power) => 10 ** power);
  const plot = plotting(id, 460, 300, "Norm of a cotangent by the number of layers passed, four lines", { from: 0, to: 20, ticks: [0, 5, 10, 15, 20], label: "layers passed, from the output back" }, { from: 1e-13, to: 1e4, ticks, label: "norm of the cotangent", log: true });
  const kinds = ["dotted", "dashed reverse", "state", "long forward"];
  names.forEach((name, k) => {
    plot.line(passed, twenty[name], kinds[k]);
    plot.svg.append(draw("text", { class: "line-name end", x: plot.x(20) - 2, y: plot.y(twenty[name][20]) + (k === 1 ? 18 : -8) }, name));
  });
  const cursor = draw("line", { class: "cursor", y1: plot.box.top, y2: plot.box.bottom });
  plot.svg.append(cursor);
  slider(id, "Layers passed", 20, 20, (k) => {
    cursor.setAttribute("x1", plot.x(k));
    cursor.setAttribute("x2", plot.x(k));
    return `After ${plural(k, "layer")}: ${names.map((name) => `${name} ${digits(twenty[name][k], 3)}`).join("; ")}.`;
  });
}
