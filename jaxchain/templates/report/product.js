// The chain as a product: a factor a stage, drawn to its shape, output on the left; groups fold into stacks.

const LEAST_SIDE = 10;
const MANY = 24;
const CAPTION_LINE = 0.975;
const painted = new WeakMap();
let factors = [];
let ownScales = false;
let pixels = 1;

/** One scale for all sides, so that the widest factor is pleasant and the product takes few lines. */
function chooseScale(room) {
  const shown = visible(data.groups, "").filter(({ group }) => group);
  const longest = Math.max(...data.states.map(({ size }) => size), 1);
  let scale = longest <= WRITTEN.cells ? Math.max(165 / longest, 42) : Math.min(165 / longest, 16);
  scale = Math.min(scale, 52);
  const width = () => shown.reduce((sum, { group }) => sum + Math.max(shapeOf(group)[1] * scale, 58) + 18, 0);
  const shrink = (lines, least) => {
    while (width() > lines * room && longest * scale > least) scale *= 0.92;
  };
  shrink(1, 130);
  shrink(2, 56);
  pixels = scale;
}

const shapeOf = ({ first, last }) => [data.stages[last].m, data.stages[first].n];
const side = (count) => Math.max(Math.round(count * pixels), count ? LEAST_SIDE : 2);

const whenSeen = new IntersectionObserver(
  (entries) => entries.forEach(({ isIntersecting, target }) => isIntersecting && paintFactor(target)),
  { rootMargin: "300px" },
);

function paintFactor(canvas) {
  const { picture, width, height } = painted.get(canvas);
  whenSeen.unobserve(canvas);
  paint(canvas, picture, width, height, ownScales ? undefined : rowLimit());
}

/** The strongest colour of the row: the largest of the factors' own limits. */
function rowLimit() {
  const limits = data.stages.filter(({ picture }) => picture?.values).map(({ picture }) => cells(picture).limit);
  return Math.max(...limits);
}

/** One colour scale for the row, or each factor its own. */
function startScales() {
  const button = byId("own-scales");
  const tell = () => {
    const limit = data.stages.some(({ picture }) => picture?.values) ? rowLimit() : 1;
    say(byId("row-scale"), ownScales ? "each factor has its own colours" : `strongest colour: ±${short(limit)} for all factors`);
    button.setAttribute("aria-pressed", String(ownScales));
  };
  button.addEventListener("click", () => {
    ownScales = !ownScales;
    byId("factors").querySelectorAll("canvas").forEach((canvas) => canvas.style.width && paintFactor(canvas));
    tell();
  });
  tell();
}

function buildFactors() {
  whenSeen.disconnect();
  const list = byId("factors");
  const shown = visible(data.groups, "").reverse();
  const captions = captionsOf(shown.filter(({ group }) => group).map(({ name }) => name));
  factors = shown.map((item) => (item.closes ? closer(item) : factor(item, captions.shift())));
  alignCaptions(list);
  list.replaceChildren(...factors.map(({ item }) => item));
  list.classList.toggle("many", factors.length > MANY);
  showWholeLines(list);
  if (list.scrollHeight > list.clientHeight + 1) list.setAttribute("tabindex", "0");
  else list.removeAttribute("tabindex");
  markFactors();
}

/** A list that scrolls ends where a line of factors does, so that none is cut. */
function showWholeLines(list) {
  list.style.removeProperty("--lines");
  const ends = factors.map(({ item }) => item.offsetTop + item.offsetHeight - list.offsetTop);
  const whole = ends.filter((end) => end <= list.clientHeight);
  if (whole.length && whole.length < ends.length) list.style.setProperty("--lines", `${Math.max(...whole)}px`);
}

/** Captions of one height, so that the middles of all matrices, and the dots between them, are level. */
function alignCaptions(list) {
  const captions = factors.filter(({ caption }) => caption);
  const most = Math.max(...captions.map(({ lines, caption }) => lines + caption.childElementCount));
  for (const { lines, caption } of captions) caption.style.minHeight = `${(most - lines) * CAPTION_LINE}rem`;
  list.style.setProperty("--caption", `${most * CAPTION_LINE + 0.4}rem`);
}

/** The mark on the left of an open group, that folds it again. */
function closer({ closes, name }) {
  const attributes = {
    type: "button",
    class: "closer",
    "aria-expanded": "true",
    "data-group": closes.name,
    title: `Fold ${closes.name}`,
  };
  const button = make(
    "button",
    { ...attributes, onclick: () => toggle(closes) },
    make("span", { "aria-hidden": "true" }, "▾ "),
    name,
  );
  const band = make("span", { class: "band", "aria-hidden": "true" });
  return { closes, button, band, item: make("li", { class: "group" }, button, band), drawn: "" };
}

function factor({ group, name, depth }, lines) {
  const [m, n] = shapeOf(group);
  const folded = group.groups.length > 0;
  const count = group.last - group.first + 1;
  const box = make("span", { class: folded ? "matrix stack" : "matrix", "data-count": folded ? count : null });
  const [width, height] = [side(n), side(m)];
  Object.assign(box.style, { width: `${width}px`, height: `${height}px` });
  // On top of a stack lies its first stage, where that has the shape of the whole.
  const top = data.stages[group.first];
  const picture = top.m === m && top.n === n ? top.picture : null;
  if (picture) {
    const canvas = make("canvas");
    painted.set(canvas, { picture, width, height });
    whenSeen.observe(canvas);
    box.append(canvas);
  } else if (!folded) box.classList.add("unknown");
  const range = folded ? extremes(group) : "";
  const caption = make(
    "span",
    { class: "shape", "aria-hidden": "true" },
    make("span", {}, `${m}×${n}`),
    range ? make("span", {}, range) : "",
  );
  const label = folded
    ? `${group.name}, ${count} stages folded, Jacobian ${m} × ${n}${range ? `, ${range}` : ""}`
    : `${group.name}, Jacobian ${m} × ${n}`;
  const which = folded
    ? { "data-group": group.name, "aria-expanded": "false" }
    : { "data-stage": group.first, "data-name": group.name, "aria-pressed": "false" };
  const act = () => (folded ? toggle(group) : choose({ stage: group.first }));
  const button = make(
    "button",
    { type: "button", class: "factor", "aria-label": label, title: label, ...which, onclick: act },
    box,
    nameOf(name, lines),
  );
  const band = make("span", { class: "band", "aria-hidden": "true" });
  const waist = data.states[group.last + 1].name === data.plan.waist && group.last + 1 < data.states.length - 1;
  const item = make(
    "li",
    { class: `${depth ? "inside " : ""}${waist ? "waist" : ""}`.trim() },
    make("div", {}, button, caption),
    band,
  );
  return { group, folded, button, caption, lines: lines.length, band, item, drawn: "" };
}

/** A long name is cut for the eye alone: the button's label says it in full. */
function nameOf(name, lines) {
  const cut = lines.join("\n");
  return cut === name ? make("span", { class: "name" }, name) : make("span", { class: "name", "data-cut": cut });
}

/** The spans of states between which the Jacobian is known after so many steps. */
function known(mode, step) {
  let spans = [];
  for (const { from, to } of stepsOf(mode).slice(0, step)) {
    spans = spans.filter((span) => span[0] < from || span[1] > to);
    if (!spans.some((span) => span[0] <= from && span[1] >= to)) spans.push([from, to]);
  }
  return spans;
}

/** Mark the selected stage, the factor of this step, and under what is multiplied already a band. */
function markFactors() {
  const { stage, mode, step } = selection;
  const spans = known(mode, step);
  const current = step > 0 ? stepsOf(mode)[step - 1].stage : -1;
  for (const entry of factors) {
    const { folded, button, band, item } = entry;
    const group = entry.group ?? { first: entry.closes.last + 1, last: entry.closes.last };
    const holds = (place) => place >= group.first && place <= group.last;
    const states = [holds(stage), holds(current)];
    // The output is on the left: a span's last state comes first.
    const count = Math.max(group.last - group.first + 1, 1);
    const end = group.first + count;
    const parts = spans
      .filter(([from, to]) => from <= group.last && to > group.first)
      .map(([from, to]) => [
        Math.max((end - to) / count, 0),
        Math.min((end - from) / count, 1),
        to > group.last + 1,
        from < group.first,
      ]);
    const drawn = JSON.stringify([mode, states, parts]);
    if (drawn === entry.drawn) continue;
    entry.drawn = drawn;
    item.classList.toggle("selected", states[0]);
    item.classList.toggle("current", states[1]);
    item.dataset.mode = mode;
    if (entry.group && !folded) button.setAttribute("aria-pressed", String(states[0]));
    band.replaceChildren(
      ...parts.map(([from, to, left, right]) => {
        const part = make("span", { class: `${left ? "" : "starts"} ${right ? "" : "ends"}` });
        Object.assign(part.style, { left: `${100 * from}%`, right: `${100 * (1 - to)}%` });
        return part;
      }),
    );
  }
}

/** In a list that scrolls, keep a stage's factor in sight; the page itself never moves. */
function revealFactor(stage) {
  const list = byId("factors");
  const entry = factors.find(({ group }) => group && group.first <= stage && stage <= group.last);
  if (!entry || !list.classList.contains("many")) return;
  const top = entry.item.offsetTop - list.offsetTop;
  const bottom = top + entry.item.offsetHeight;
  if (top < list.scrollTop || bottom > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
}

/** Show the factor of this step; before the first, where the chosen order begins. */
function revealStep() {
  const { mode, step } = selection;
  if (stepsOf(mode).length) revealFactor(stepsOf(mode)[Math.max(step - 1, 0)].stage);
}

function startProduct() {
  const list = byId("factors");
  chooseScale(list.clientWidth || 360);
  buildFactors();
  startScales();
  follow(["stage", "mode", "step"], markFactors);
  follow(["mode", "step"], revealStep);
  follow(["stage"], () => revealFactor(selection.stage));
  if (location.hash.includes("=")) revealFactor(selection.stage);
  else revealStep();
  repaints.push(() =>
    list.querySelectorAll("canvas").forEach((canvas) => (printing || canvas.style.width) && paintFactor(canvas)),
  );
  for (const [kind, shade] of [
    ["negative", 20],
    ["nought", 127],
    ["positive", 234],
  ]) {
    const swatch = document.querySelector(`.swatch.${kind}`);
    const colour = () => {
      swatch.style.background = `rgb(${colours()
        .bytes.slice(3 * shade, 3 * shade + 3)
        .join(",")})`;
    };
    colour();
    repaints.push(colour);
  }
}
