// Four walks down a bowl of two weights, and a network that learns to read, each under a slider of stored steps.

pictures.descent = (values) => {
  const id = "descent-bowl";
  const names = Object.keys(values.walks);
  let chosen = names[0];
  let at = 12;
  buttons(id, "Which walk", names, (k) => {
    chosen = names[k];
    show();
  });
  const plot = plotting(id, 460, 360, "Contour lines of the loss over two weights, and a walk across them", { from: -2.5, to: 5, ticks: [-2, 0, 2, 4], label: "first weight: how steep the line is" }, { from: -4.5, to: 4, ticks: [-4, -2, 0, 2, 4], label: "second weight: how high it is" });
  const clip = draw("clipPath", { id: `${id}-inside` }, draw("rect", { x: plot.box.left, y: plot.box.top, width: plot.box.right - plot.box.left, height: plot.box.bottom - plot.box.top }));
  const inside = draw("g", { "clip-path": `url(#${id}-inside)` });
  plot.svg.append(draw("defs", {}, clip), inside);
  for (const line of values.contours) inside.append(draw("polygon", { class: "contour", points: plot.trail(line.map(([x]) => x), line.map(([, y]) => y)) }));
  const [x, y] = values.best.map((value, k) => (k ? plot.y : plot.x)(value));
  inside.append(draw("path", { class: "best", d: `M${x - 6} ${y}h12M${x} ${y - 6}v12` }));
  const trail = draw("polyline", { class: "curve walk" });
  const dots = draw("g");
  inside.append(trail, dots);
  const show = () => {
    const walked = values.walks[chosen][0].slice(0, at + 1);
    trail.setAttribute("points", plot.trail(walked.map(([w]) => w), walked.map(([, w]) => w)));
    dots.replaceChildren(...walked.map(([a, b], k) => draw("circle", { class: k === at ? "dot last" : "dot", cx: plot.x(a), cy: plot.y(b), r: k === at ? 6 : 2.5 })));
    const losses = names.map((name) => `${name} ${digits(values.walks[name][1][at], 3)}`);
    return `After ${plural(at, "step")} the loss is: ${losses.join("; ")}.`;
  };
  slider(id, "Steps", values.walks[chosen][0].length - 1, at, (k) => {
    at = k;
    return show();
  });
  if (values.reading) learnsToRead(values.reading);
};

function learnsToRead(reading) {
  const id = "descent-reading";
  const steps = reading.right.map((_, k) => k * reading.every);
  const top = Math.max(...reading.losses);
  const plot = plotting(id, 460, 190, "The loss by training step", { from: 0, to: reading.losses.length, ticks: [0, 100, 200, 300].filter((tick) => tick <= reading.losses.length), label: "training step" }, { from: 0, to: top, ticks: [0, 1, 2, 3].filter((tick) => tick <= top), label: "loss" });
  plot.line([...reading.losses.keys()], reading.losses, "state thin");
  const cursor = draw("line", { class: "cursor", y1: plot.box.top, y2: plot.box.bottom });
  plot.svg.append(cursor);
  const chart = draw("svg", { viewBox: "0 0 330 100", role: "img", "aria-label": "A bar for each digit: the chance that the network gives it" });
  const bars = reading.chances[0].map((_, digit) => {
    const bar = draw("rect", { class: digit === reading.label ? "chance right-one" : "chance", x: 6 + digit * 32, width: 24 });
    chart.append(bar, draw("text", { class: "tick middle", x: 18 + digit * 32, y: 96 }, digit === reading.label ? `✓${digit}` : String(digit)));
    return bar;
  });
  const picture = cellsOf(reading.image, 8, Math.max(...reading.image));
  placeOf(id).append(make("div", { class: "beside-each-other" }, make("div", { class: "small" }, picture), chart));
  slider(id, "Snapshot", steps.length - 1, 0, (k) => {
    cursor.setAttribute("x1", plot.x(steps[k]));
    cursor.setAttribute("x2", plot.x(steps[k]));
    bars.forEach((bar, digit) => {
      const height = Math.max(reading.chances[k][digit] * 76, 1);
      bar.setAttribute("height", height);
      bar.setAttribute("y", 80 - height);
    });
    return `After ${plural(steps[k], "step")} it reads ${digits(100 * reading.right[k], 3)} % of the unseen digits, and gives this ${reading.label} a chance of ${digits(100 * reading.chances[k][reading.label], 3)} %.`;
  });
}
