// Curves over the chain on a logarithmic axis: lines told apart by dash and mark, named at their ends.

const MARKS = { state: "diamond", forward: "circle", reverse: "square", middle: "circle", low: "square" };
const MARKED = 14;
const EDGE = 14;
const LANE = 11;

/**
 * Draw lines over places 0 … count − 1, `axis` their names, or those of the ends: as many as fit are written. `place` is where the selection is marked, as a span of places;
 * `pick(place)` is called where a person clicks; `tell(place)` says what is there.
 */
function plot(root, { lines, height = 190, label, axis, area, span, pick, tell, quiet, offset = 0, count }) {
  const width = Math.max(root.clientWidth || 480, 240);
  const ends = Math.max(...lines.map((line) => line.label.length)) * 6.6 + 14;
  const left = 46;
  // What has no place on the axis is marked above or below it, each line in a lane of its own.
  const above = lines.filter((line) => line.values.some((value) => hasNoPlace(value) && value !== 0));
  const below = lines.filter((line) => line.values.includes(0));
  const frame = {
    left,
    right: width - Math.min(ends, width / 2.6),
    top: EDGE + 2 + LANE * Math.max(above.length - 1, 0),
    bottom: height - (axis ? 34 : 16) - LANE * Math.max(below.length - 1, 0),
  };
  const lanesOf = (line) => ({
    over: frame.top - 4 - LANE * above.indexOf(line),
    under: frame.bottom + 12 + LANE * below.indexOf(line),
  });
  const values = lines.flatMap((line) => line.values);
  const scale = logAxis(values);
  const places = count ?? lines[0].values.length;
  const x = (k) => frame.left + ((k + offset) / Math.max(places - 1, 1)) * (frame.right - frame.left);
  const y = (value) => frame.bottom - scale.place(value) * (frame.bottom - frame.top);
  const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  const mark = draw("rect", { class: "span", y: frame.top - 4, height: frame.bottom - frame.top + 4, width: 0 });
  picture.append(...grid(scale, frame, y), mark);
  if (area)
    picture.append(draw("path", { class: "area", d: areaPath(lines[area[0]].values, lines[area[1]].values, x, y) }));
  const tips = lines.map((line) => curve(picture, line, x, y, frame, lanesOf(line)));
  const heights = spread(
    tips.map((tip) => tip - frame.top),
    13,
    frame.bottom - frame.top,
  ).map((place) => place + frame.top);
  lines.forEach((line, k) => {
    picture.append(draw("text", { class: `end ${line.kind}`, x: frame.right + 10, y: heights[k] + 4 }, line.label));
    picture.append(
      draw("line", {
        class: `leader ${line.kind}`,
        x1: frame.right + 2,
        y1: tips[k],
        x2: frame.right + 8,
        y2: heights[k],
      }),
    );
  });
  if (axis) picture.append(...names(axis, (k) => x((k * (lines[0].values.length - 1)) / Math.max(axis.length - 1, 1)), frame, height - 8));
  const readout = quiet ? null : make("p", { class: "readout" });
  root.replaceChildren(picture, ...(readout ? [readout] : []));
  const select = () => {
    if (!span) return;
    const [from, to] = span();
    const at = [x(from - offset), x(to - offset)];
    mark.setAttribute("x", Math.min(at[0], at[1] - 2));
    mark.setAttribute("width", Math.max(at[1] - at[0], 2));
    if (readout && tell) say(readout, tell());
  };
  select();
  if (pick) listen(picture, { frame, places, offset, pick, readout, tell });
  return select;
}

function listen(picture, { frame, places, offset, pick, readout, tell }) {
  const nearest = (event) => {
    const bounds = picture.getBoundingClientRect();
    const part =
      ((event.clientX - bounds.left) * (picture.viewBox.baseVal.width / bounds.width) - frame.left) /
      (frame.right - frame.left);
    return Math.min(Math.max(Math.round(part * (places - 1) - offset), 0), places - 1 - Math.ceil(offset));
  };
  picture.classList.add("pick");
  picture.addEventListener("click", (event) => pick(nearest(event)));
  picture.addEventListener(
    "pointermove",
    eachFrame((event) => say(readout, tell(nearest(event)))),
  );
  picture.addEventListener("pointerleave", () => say(readout, tell()));
}

/** The names of evenly chosen places, the first and the last among them, as many as have room. */
function names(words, x, frame, y) {
  const last = words.length - 1;
  const shown = words.map((word) => brief(word, 24));
  const room = Math.max(...shown.map((word) => word.length)) * 6.6 * 1.5 + 12; // those at the ends reach inwards
  const stride = Math.max(Math.ceil((room * last) / (x(last) - x(0) || 1)), 1);
  return shown.flatMap((word, k) => {
    if (k !== last && (k % stride || k + stride > last)) return [];
    const side = k === last && last ? "right" : k ? "middle" : "";
    const at = { "": frame.left, middle: x(k), right: frame.right }[side];
    return [
      draw("line", { class: "grid", x1: x(k), x2: x(k), y1: frame.bottom, y2: frame.bottom + 4 }),
      draw("text", { class: `axis ${side}`, x: at, y }, word),
    ];
  });
}

function grid({ ticks }, frame, y) {
  const scale = draw("text", { class: "axis", x: 0, y: 10 }, "log scale");
  return ticks.flatMap((tick) => [
    draw("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y(tick), y2: y(tick) }),
    draw("text", { class: "tick", x: frame.left - 6, y: y(tick) + 4 }, short(tick)),
  ]).concat(scale);
}

const shownOnLog = (value) => value !== null && value > 0 && Number.isFinite(value);
const hasNoPlace = (value) => value !== null && !shownOnLog(value);

/**
 * One line with gaps where the axis has no place; what falls in a gap is marked at an edge. The height of its end.
 * A bridged line passes straight over places where it has no value at all.
 */
function curve(picture, { values, kind, bridged }, x, y, frame, lanes) {
  let path = "";
  let pen = "M";
  let tip = (frame.top + frame.bottom) / 2;
  const odds = [];
  values.forEach((value, k) => {
    if (shownOnLog(value)) {
      tip = y(value);
      path += `${pen}${x(k).toFixed(1)} ${tip.toFixed(1)}`;
      pen = "L";
    } else if (!bridged || value !== null) {
      pen = "M";
      if (hasNoPlace(value)) odds.push([value, k]);
    }
  });
  picture.append(draw("path", { class: `line ${kind}`, d: path }));
  const stride = Math.max(Math.ceil(values.length / MARKED), 1);
  values.forEach((value, k) => {
    const alone = !shownOnLog(values[k - 1]) && !shownOnLog(values[k + 1]);
    if (shownOnLog(value) && (k % stride === 0 || k === values.length - 1 || alone))
      picture.append(point(MARKS[kind], kind, x(k), y(value)));
  });
  const apart = Math.max(Math.ceil(odds.length / 40), 1);
  odds.forEach(([value, k], rank) => {
    if (rank % apart) return;
    const at = value === 0 ? lanes.under : lanes.over;
    picture.append(
      draw("text", { class: `odd ${kind}`, x: x(k), y: at }, value === 0 ? "0" : Number.isNaN(value) ? "×" : "∞"),
    );
  });
  return tip;
}

function point(shape, kind, x, y) {
  if (shape === "circle") return draw("circle", { class: `mark ${kind}`, cx: x, cy: y, r: 3 });
  if (shape === "square")
    return draw("rect", { class: `mark ${kind}`, x: x - 2.7, y: y - 2.7, width: 5.4, height: 5.4 });
  return draw("path", {
    class: `mark ${kind}`,
    d: `M${x} ${y - 3.8}L${x + 3.8} ${y}L${x} ${y + 3.8}L${x - 3.8} ${y}Z`,
  });
}

/** Between two lines, wherever both have neighbours: nothing is claimed across a gap. */
function areaPath(high, low, x, y) {
  const runs = [[]];
  high.forEach((value, k) => (shownOnLog(value) && shownOnLog(low[k]) ? runs.at(-1).push(k) : runs.push([])));
  const go = (values) => (k) => `${x(k).toFixed(1)} ${y(values[k]).toFixed(1)}`;
  return runs
    .filter((run) => run.length > 1)
    .map((run) => `M${run.map(go(high)).join("L")}L${[...run].reverse().map(go(low)).join("L")}Z`)
    .join("");
}
