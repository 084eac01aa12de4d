// Small matrices with their entries; an entry of a gradient, when pressed, shows the two numbers that it is made of.

pictures.weights = (values) => {
  const column = (list) => list.map((entry) => [entry]);
  const tables = {};
  const row = (id, parts) => {
    const line = make("div", { class: "equation" });
    for (const part of parts) {
      if (typeof part === "string") line.append(make("span", { class: "sign" }, part));
      else {
        tables[part.name] = matrix(part);
        line.append(tables[part.name]);
      }
    }
    placeOf(id).append(line);
  };
  row("weights-forward", [
    { name: "W", rows: values.W }, "·", { name: "x", rows: column(values.x) }, "+", { name: "b", rows: column(values.b) }, "=", { name: "y", rows: column(values.y) },
  ]);
  const said = make("p", { class: "said", role: "status" });
  const pick = (i, j, button) => {
    for (const marked of placeOf("weights-back").querySelectorAll(".marked")) marked.classList.remove("marked");
    [button, entry("cotangent", i, 0), entry("input, lying down", 0, j)].forEach((cell) => cell.classList.add("marked"));
    placeOf("weights-back").querySelectorAll("[aria-pressed]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    const product = `${digits(values.y_bar[i])} · ${digits(values.x[j])} = ${digits(values.W_bar[i][j])}`;
    say(said, `Row ${i + 1}, column ${j + 1}: cotangent of output ${i + 1} times input ${j + 1}, ${product}.`);
  };
  const entry = (name, i, j) => tables[name].querySelectorAll("tr")[i].children[j];
  row("weights-back", [
    { name: "cotangent", rows: column(values.y_bar) }, "·", { name: "input, lying down", rows: [values.x] }, "=", { name: "gradient of W", rows: values.W_bar, pick },
  ]);
  placeOf("weights-back").append(said);
  entry("gradient of W", 0, values.W_bar[0].length - 1).querySelector("button").click(); // the weight that the text is about
};

/** A table of numbers with its name and shape under it; with `pick`, its entries are buttons. */
function matrix({ name, rows, pick }) {
  const table = make("table", { class: "matrix-numbers" }, make("caption", {}, name, make("span", { class: "size" }, ` ${rows.length}×${rows[0].length}`)));
  const body = make("tbody");
  rows.forEach((list, i) => {
    const line = make("tr");
    list.forEach((value, j) => {
      if (!pick) {
        line.append(make("td", {}, digits(value)));
        return;
      }
      const button = make("button", { type: "button", "aria-pressed": "false", "aria-label": `row ${i + 1}, column ${j + 1}: ${digits(value)}` }, digits(value));
      button.addEventListener("click", () => pick(i, j, button));
      line.append(make("td", {}, button));
    });
    body.append(line);
  });
  table.append(body);
  return table;
}
