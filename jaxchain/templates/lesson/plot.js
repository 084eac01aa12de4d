// Lines over two axes, each with its name at its end: told apart by dashes and words, not by colour.

/** Axes are {from, to, ticks, label, log}; what comes back turns numbers into places and adds lines. */
function plotting(id, width, height, label, across, up) {
  const svg = drawing(id, width, height, label);
  const box = { left: 46, right: width - 12, top: 14, bottom: height - 40 };
  const scale = ({ from, to, log }, low, high) => {
    const of = log ? Math.log10 : (value) => value;
    return (value) => low + ((of(value) - of(from)) / (of(to) - of(from))) * (high - low);
  };
  const [x, y] = [scale(across, box.left, box.right), scale(up, box.bottom, box.top)];
  for (const tick of up.ticks) {
    svg.append(
      draw("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      draw("text", { class: "tick end", x: box.left - 6, y: y(tick) + 4 }, up.log ? raised(tick) : digits(tick)),
    );
  }
  for (const tick of across.ticks) {
    svg.append(
      draw("line", { class: "rail", x1: x(tick), x2: x(tick), y1: box.bottom, y2: box.bottom + 4 }),
      draw("text", { class: "tick middle", x: x(tick), y: box.bottom + 18 }, digits(tick)),
    );
  }
  svg.append(
    draw("line", { class: "rail", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    draw("text", { class: "axis-name middle", x: (box.left + box.right) / 2, y: height - 4 }, across.label),
    draw("text", { class: "axis-name", x: 2, y: 4 }, up.label),
  );
  const trail = (xs, ys) => xs.map((value, k) => `${x(value).toFixed(1)},${y(ys[k]).toFixed(1)}`).join(" ");
  const line = (xs, ys, kind) => {
    const drawn = draw("polyline", { class: `curve ${kind}`, points: trail(xs, ys) });
    svg.append(drawn);
    return drawn;
  };
  return { svg, x, y, box, line, trail };
}
