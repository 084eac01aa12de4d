// The selected stage as a sum, y = x + g(x): its Jacobian is the sum of the terms', each of which opens into its own chain.

function startSum() {
  const root = byId("sum");
  let drawn = [];
  const repaint = () =>
    drawn.forEach(({ canvas, picture, limit }) => picture && paint(canvas, picture, ...termSize(picture), limit));
  const update = () => {
    const { sum, name } = data.stages[selection.stage];
    root.hidden = !sum;
    if (!sum) return;
    // One scale for all terms, so that what looks stronger is.
    const limit = Math.max(...sum.terms.map(({ picture }) => (picture ? cells(picture).limit : 0)));
    drawn = sum.terms.map(({ picture }) => ({ canvas: picture && make("canvas"), picture, limit }));
    const equation = sum.terms.flatMap((term, k) => [k ? " + " : "", symbol(term)]);
    root.querySelector("h3").replaceChildren("A sum: ", make("var", {}, "J"), " = ", ...equation);
    say(root.querySelector(".note"), [normsOf(sum), sum.note].filter(Boolean).join(" "));
    root.querySelector(".terms").replaceChildren(...sum.terms.map((term, k) => termOf(term, name, drawn[k].canvas)));
    repaint();
  };
  follow(["stage"], update);
  repaints.push(repaint);
  update();
}

/** I, or J with the term's name below. */
const symbol = ({ identity, name }) => (identity ? make("var", {}, "I") : make("span", {}, make("var", {}, "J"), make("sub", {}, brief(name, 24))));

function normsOf({ terms, norm }) {
  const each = terms.map(({ identity, name, norm: size }) => `${identity ? "x itself" : name} ${short(read(size))}`);
  return `Frobenius norms: the whole ${short(read(norm))}, ${each.join(", ")}.`;
}

function termSize({ shape: [m, n] }) {
  const scale = Math.max(m, n) <= WRITTEN.cells ? Math.min(52, 230 / n) : Math.min(24, 230 / n, 150 / m);
  return [n * scale, m * scale].map((side) => Math.round(Math.max(side, HAIRLINE)));
}

function termOf(term, stage, canvas) {
  const { name, identity, words, picture, parts, norm } = term;
  if (canvas) {
    const [m, n] = picture.shape;
    const label = `${identity ? "The identity" : `Jacobian of the term ${name}`} of ${stage}, ${m} × ${n}${words ? `: ${words}` : ""}`;
    for (const [key, value] of [["role", "img"], ["aria-label", label]]) canvas.setAttribute(key, value);
  }
  return make(
    "li",
    {},
    canvas ?? make("p", { class: "note" }, "No picture: the term’s Jacobian was not computed."),
    make("p", {}, symbol(term), " ‖", figure(read(norm)), "‖"),
    words && !identity ? make("p", { class: "remark" }, words) : "",
    parts.length ? make("details", {}, make("summary", {}, plural(parts.length, "stage")), make("ol", { class: "parts" }, ...parts.map(partOf))) : "",
  );
}

const partOf = ({ name, m, n, norm }) =>
  make("li", {}, make("code", {}, name), ` ${m} × ${n}`, norm === null ? "" : make("span", {}, ", ‖", figure(read(norm)), "‖"));
