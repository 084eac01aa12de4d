// Along both chains: each norm on one axis, a and b told apart by mark and dash; a stage that one lacks is passed over.

Object.assign(MARKS, { a: "circle", b: "square" });

function startAlong() {
  const roots = [...document.querySelectorAll("[data-quantity].plot")];
  let marks = [];
  const render = () => {
    marks = roots.map((root) => drawQuantity(root));
  };
  render();
  follow(["stage"], () => marks.forEach((mark) => mark()));
  onWidth(render);
}

const share = ({ difference }) => (difference === null ? null : 100 * difference);
const percent = (row) => (row.difference === null ? "–" : `${short(share(row))} %`);

function drawQuantity(root) {
  const { rows, names } = data;
  const key = root.dataset.quantity;
  const { title, finding } = data.quantities.find((quantity) => quantity.key === key);
  const lines =
    key === "difference"
      ? [{ kind: "state", label: "difference", values: rows.map(share), bridged: true }]
      : SIDES.map((side, k) => ({
          kind: side,
          label: brief(names[k], 14),
          values: rows.map((row) => valueOf(row, side, key)),
          bridged: true,
        }));
  const words = (k) =>
    key === "difference" ? percent(rows[k]) : SIDES.map((side, s) => `${names[s]} ${short(valueOf(rows[k], side, key))}`).join(", ");
  return plot(root, {
    lines,
    height: 190,
    label: `${title}, by stage, logarithmic. ${finding}`,
    axis: rows.map(({ name }) => name),
    span: () => [Math.max(selection.stage - 0.5, 0), Math.min(selection.stage + 0.5, rows.length - 1)],
    pick: (stage) => choose({ stage }),
    tell: (k = selection.stage) => `${rows[k].name}: ${words(k)}`,
  });
}
