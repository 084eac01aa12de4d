// Numbers as the text has them: four significant digits, powers of ten where they are large or small.

const MINUS = "−";
const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** Four significant digits, powers of ten where a number is large or small; as the text has them. */
function digits(value, count = 4) {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "not a number" : value > 0 ? "∞" : `${MINUS}∞`;
  let text;
  if (value === 0 || (size >= 1000 && size < 1e9 && Number.isInteger(value))) text = value.toLocaleString("en");
  else if (size >= 1e-3 && size < 1e6) text = (size < 10 ** count ? Number(value.toPrecision(count)) : Math.round(value)).toLocaleString("en", { maximumFractionDigits: 12 });
  else {
    const [mantissa, power] = value.toExponential(count - 1).split("e");
    text = `${Number(mantissa)}×10${[...String(Number(power))].map((letter) => RAISED[letter]).join("")}`;
  }
  return text.replace("-", MINUS);
}

const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

const raised = (value) => `10${[...String(Math.round(Math.log10(value)))].map((letter) => RAISED[letter]).join("")}`;
