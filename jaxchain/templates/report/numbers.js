// Numbers for people: three significant digits, SI prefixes, and a look of their own for 0, NaN and ∞.

const PREFIXES = ["n", "µ", "m", "", "k", "M", "G", "T", "P"];
const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const MINUS = "−";

/** Read a number of the data, where what is not finite is a word; null stays null. */
const read = (value) => (value === null || value === undefined ? null : Number(value));

function odd(value) {
  if (value === null) return "–";
  if (Number.isNaN(value)) return "NaN";
  return value > 0 ? "∞" : `${MINUS}∞`;
}

const raise = (power) => `10${[...String(power)].map((letter) => RAISED[letter]).join("")}`;

/** Three significant digits: 0.0123, 8.4, 1.2×10⁻⁵. */
function short(value) {
  if (value === null || !Number.isFinite(value)) return odd(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 0.000995 && size < 9999.5) {
    return String(Number(size >= 999.5 ? value.toFixed(0) : value.toPrecision(3))).replace("-", MINUS);
  }
  const [mantissa, power] = value.toExponential(2).split("e");
  if (Number(mantissa) === 1) return raise(Number(power));
  return `${String(Number(mantissa)).replace("-", MINUS)}×${raise(Number(power))}`;
}

/** Three significant digits with an SI prefix: 8.40 M; whole numbers below 1000 as they are. */
function si(value, unit = "") {
  if (value === null || !Number.isFinite(value)) return odd(value);
  const gap = unit ? "\u00a0" : "";
  if (value === 0 || (Number.isInteger(value) && Math.abs(value) < 1000)) return `${value}${gap}${unit}`;
  // Half a multiply-add is possible, a milli-multiply-add is not a word: only seconds have small prefixes.
  if (Math.abs(value) < 1 && unit !== "s") return `${short(value)}${gap}${unit}`;
  let place = Math.min(Math.max(Math.floor(Math.log10(Math.abs(value)) / 3), -3), 5);
  if (Math.abs(value) / 1000 ** place >= 999.5 && place < 5) place += 1;
  const prefix = PREFIXES[place + 3];
  return `${(value / 1000 ** place).toPrecision(3)}${prefix || unit ? "\u00a0" : ""}${prefix}${unit}`;
}

/** All digits that a double needs, and no more. */
const full = (value) => (value === null || !Number.isFinite(value) ? odd(value) : String(value));

/** The shortest decimal that a float32, or a double, reads back from. */
function exact(value, double) {
  if (double || !Number.isFinite(value) || value === 0) return String(value);
  for (let digits = 1; digits < 9; digits += 1) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}

/** A number as an element: short, in full when pointed at. */
function figure(value) {
  const kind = value === null ? "none" : !Number.isFinite(value) ? "odd" : value === 0 ? "zero" : "";
  return make("span", { class: `number ${kind}`.trim(), title: full(value) }, short(value));
}

/** A name cut in its middle: what tells names apart is often at their ends. */
function brief(name, most) {
  const head = Math.floor((most - 1) / 3);
  return name.length > most ? `${name.slice(0, head)}…${name.slice(head + 1 - most)}` : name;
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
