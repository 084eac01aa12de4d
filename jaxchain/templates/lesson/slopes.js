// Three number lines on one scale: a short piece of x, what f makes of it, and what g makes of that.

pictures.slopes = (values) => {
  const svg = drawing("slopes-lines", 420, 300, "Three number lines, a short piece of the first carried to the second and the third");
  const unit = 78;
  const lines = [
    { name: "x", y: 44, zero: 24, low: 0, high: 2 },
    { name: "u = x²", y: 150, zero: 24, low: 0, high: 4.4 },
    { name: "y = sin u", y: 256, zero: 24 + unit * 1.5, low: -1, high: 1 },
  ];
  const at = (line, value) => lines[line].zero + unit * value;
  const bands = [0, 1].map((k) => draw("polygon", { class: `band band-${k}` }));
  svg.append(...bands);
  for (const { name, y, zero, low, high } of lines) {
    svg.append(draw("line", { class: "rail", x1: zero + unit * low, x2: zero + unit * high, y1: y, y2: y }));
    for (let tick = Math.ceil(low); tick <= high; tick += 1) {
      svg.append(
        draw("line", { class: "rail", x1: zero + unit * tick, x2: zero + unit * tick, y1: y - 4, y2: y + 4 }),
        draw("text", { class: "tick middle", x: zero + unit * tick, y: y + 18 }, digits(tick)),
      );
    }
    svg.append(draw("text", { class: "name end", x: 412, y: y - 8 }, name));
  }
  const pieces = lines.map(({ y }) => draw("line", { class: "piece", y1: y, y2: y }));
  const factors = [0, 1].map((k) => draw("text", { class: "factor-text end", x: 412, y: lines[k].y + 58 }));
  svg.append(...pieces, ...factors);
  slider("slopes-lines", "Move x", values.xs.length - 1, values.start, (k) => {
    const from = [values.xs[k], values.us[k], values.ys[k]];
    const to = [values.xs[k] + values.width, values.moved_us[k], values.moved_ys[k]];
    pieces.forEach((piece, line) => {
      piece.setAttribute("x1", at(line, from[line]));
      piece.setAttribute("x2", at(line, to[line]));
    });
    bands.forEach((band, line) => {
      const corners = [
        [at(line, from[line]), lines[line].y],
        [at(line, to[line]), lines[line].y],
        [at(line + 1, to[line + 1]), lines[line + 1].y],
        [at(line + 1, from[line + 1]), lines[line + 1].y],
      ];
      band.setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));
    });
    const slopes = [values.f_slopes[k], values.g_slopes[k]];
    factors.forEach((text, line) => say(text, `slope ${digits(slopes[line])}`));
    return `x = ${digits(from[0])}: f has slope ${digits(slopes[0])}, g at u = ${digits(from[1])} has slope ${digits(slopes[1])}. Together ${digits(slopes[1])} · ${digits(slopes[0])} = ${digits(values.slopes[k])}.`;
  });
};
