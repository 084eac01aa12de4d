// The heads of the selected stage's attention: the weights of each as a small map, its share of the Jacobian, one to read.

const MAP = 68;

function startAttention() {
  const show = heatMap(byId("weights"), byId("weights-hover"), { widest: 260, tallest: 220 });
  const list = document.querySelector(".heads");
  let [heads, canvases] = [[], []];

  function open(head) {
    heads.forEach((one, k) => list.children[k].firstChild.setAttribute("aria-pressed", String(one === head)));
    const [queries, keys] = head.picture.shape;
    const whole = head.picture.cells[0] === queries && head.picture.cells[1] === keys;
    const words = whole ? "every query on every key" : "each cell the largest of a block of queries and keys";
    say(document.querySelector("#weights .shown"), `Weights of ${head.name}: ${words}`);
    show(head.picture, {
      rows: `query (${queries})`,
      columns: `key (${keys})`,
      label: `Weights of ${head.name} of ${data.stages[selection.stage].name}; arrow keys move over them.`,
      hint: "Point at a weight to read it, or use the arrow keys here.",
    });
  }

  function update() {
    const found = data.stages[selection.stage].attention;
    byId("attention").hidden = !found.length;
    if (!found.length) return;
    heads = found.flatMap((product) => product.heads).filter(({ picture }) => picture);
    canvases = heads.map(() => make("canvas", { "aria-hidden": "true" }));
    say(document.querySelector("#attention .note"), found.map(({ says }) => says).join(" "));
    list.replaceChildren(...heads.map((head, k) => make("li", {}, thumb(head, canvases[k], () => open(head)))));
    repaint();
    open(heads.reduce((best, head) => (Number(head.share) > Number(best.share) ? head : best)));
  }

  const repaint = () => heads.forEach(({ picture }, k) => paint(canvases[k], picture, ...mapSize(picture)));
  follow(["stage"], update);
  repaints.push(repaint);
  update();
}

function mapSize({ shape: [queries, keys] }) {
  const scale = MAP / Math.max(queries, keys);
  return [keys, queries].map((side) => Math.max(Math.round(side * scale), 4));
}

/** One head as a button: its map, its name, and its share of the Jacobian as a bar and a number. */
function thumb({ name, share }, canvas, onclick) {
  const known = share !== null;
  const bar = make("span", { class: "share", "aria-hidden": "true" }, make("span"));
  bar.firstChild.style.width = `${100 * Math.min(Number(share) || 0, 1)}%`;
  const words = known ? `${name}, ${short(read(share))} of the Jacobian’s norm` : name;
  return make(
    "button",
    { type: "button", class: "head", "aria-pressed": "false", "aria-label": words, onclick },
    make("span", { class: "map" }, canvas),
    make("span", { class: "head-name" }, name),
    known ? bar : "",
    known ? figure(read(share)) : "",
  );
}
