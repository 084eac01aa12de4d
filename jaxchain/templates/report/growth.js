// The norms in words: how far a tangent or a cotangent grows or dies on its way, and where it has no size to speak of.

const NOTABLE = 1.5;

const placeName = (k) => (k === 0 ? "the input" : data.states[k].name);

/** “The cotangent falls 29-fold, from 1 at dense_9 to 0.035 at dense_4, then grows 21-fold to 0.74 at the input.” */
function growth(name, values, back) {
  const way = values.map((value, k) => ({ value, k })).filter(({ value }) => shownOnLog(value));
  if (back) way.reverse();
  if (way.length < 2) return "";
  const turns = turningPoints(way);
  const legs = turns.slice(1).map((turn, k) => leg(turns[k], turn, k > 0));
  return `The ${name} ${legs.join(", then ")}${turns.length === 2 ? rate(...turns) : ""}.`;
}

/** Both ends, and between them the extremes that lie well outside of what the ends span. */
function turningPoints(way) {
  const [first, last] = [way[0], way.at(-1)];
  const [low, high] = [Math.min(first.value, last.value), Math.max(first.value, last.value)];
  const least = way.reduce((best, norm) => (norm.value < best.value ? norm : best));
  const most = way.reduce((best, norm) => (norm.value > best.value ? norm : best));
  const outside = [least, most].filter(({ value }) => value * NOTABLE < low || value > high * NOTABLE);
  return [first, ...outside.sort((a, b) => way.indexOf(a) - way.indexOf(b)), last];
}

function leg(from, to, continued) {
  const ratio = to.value / from.value;
  const times = Math.max(ratio, 1 / ratio);
  const fold = `${short(Number(times.toPrecision(times < 10 ? 2 : 3)))}-fold`;
  const change = times < 1.05 ? "keeps its size" : `${ratio > 1 ? "grows" : "falls"} ${fold}`;
  const start = continued ? "" : `, from ${short(from.value)} at ${placeName(from.k)}`;
  return `${change}${start} to ${short(to.value)} at ${placeName(to.k)}`;
}

/** What that makes a stage, where there are enough of them for a mean to mean something. */
function rate(from, to) {
  const stages = Math.abs(to.k - from.k);
  const each = Number(((to.value / from.value) ** (1 / stages)).toPrecision(3));
  return stages < 3 || each === 1 ? "" : `, ×${short(each)} a stage`;
}

/** Where a norm is zero or not finite. */
function trouble(name, values) {
  const where = (test) => values.map((value, k) => (value !== null && test(value) ? k : -1)).filter((k) => k >= 0);
  const kinds = [
    ["NaN", Number.isNaN],
    ["infinite", (value) => Math.abs(value) === Infinity],
    ["zero", (value) => value === 0],
  ];
  return kinds
    .map(([word, test]) => [word, where(test)])
    .filter(([, places]) => places.length)
    .map(
      ([word, places]) =>
        `The ${name} is ${word} at ${placeName(places[0])}${places.length > 1 ? ` and ${places.length - 1} more` : ""}.`,
    )
    .join(" ");
}
