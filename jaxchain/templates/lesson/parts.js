// Small parts that the chapters’ pictures share: sliders, rows of buttons, empty drawings.

const lesson = JSON.parse(byId("lesson-data").textContent);
const pictures = {};
const placeOf = (id) => byId(id).querySelector(".drawn-here");

/** An empty drawing of so many units, which scales to the width that it is given. */
function drawing(id, width, height, label) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  placeOf(id).append(svg);
  return svg;
}

/** A slider under a picture: `tell(k)` draws, and returns what the slider says in words. */
function slider(id, name, last, start, tell) {
  const input = make("input", { type: "range", id: `${id}-${name.toLowerCase().replace(/\W+/g, "-")}`, min: 0, max: last, step: 1, value: start });
  const said = make("output", { for: input.id, class: "said" });
  const move = () => {
    const text = tell(Number(input.value));
    input.setAttribute("aria-valuetext", text);
    say(said, text);
  };
  input.addEventListener("input", move);
  placeOf(id).append(make("div", { class: "slider" }, make("label", { for: input.id }, name), input, said));
  move();
  return input;
}

/** A row of buttons of which one is pressed. */
function buttons(id, label, names, choose) {
  const row = make("div", { class: "tabs", role: "group", "aria-label": label });
  names.forEach((name, k) => {
    const button = make("button", { type: "button", class: "tab", "aria-pressed": String(k === 0) }, name);
    button.addEventListener("click", () => {
      [...row.children].forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      choose(k);
    });
    row.append(button);
  });
  placeOf(id).append(row);
  return row;
}

/** Back and on buttons, for what is looked at step by step: `tell(step)` draws, and returns what to say. */
function stepper(id, lastOf, tell) {
  let step = 0;
  const said = make("p", { class: "said", role: "status" });
  const back = make("button", { type: "button" }, "◀ Back");
  const on = make("button", { type: "button" }, "Next ▶");
  const count = make("span", { class: "hint-count" });
  const go = (to) => {
    step = Math.min(Math.max(to, 0), lastOf());
    back.setAttribute("aria-disabled", String(step === 0));
    on.setAttribute("aria-disabled", String(step === lastOf()));
    say(count, `step ${step} of ${lastOf()}`);
    say(said, tell(step));
  };
  back.addEventListener("click", () => go(step - 1));
  on.addEventListener("click", () => go(step + 1));
  placeOf(id).append(make("div", { class: "controls" }, back, on, count), said);
  go(0);
  return go;
}

/** A list of numbers as a picture of cells, blue with a dash below zero, red above; `limit` is the strongest colour. */
function cellsOf(values, columns, limit, side = 10) {
  const rows = Math.ceil(values.length / columns);
  const svg = draw("svg", { viewBox: `0 0 ${columns * side} ${rows * side}`, class: "cells", "aria-hidden": "true" });
  values.forEach((value, k) => {
    svg.append(
      draw("rect", {
        x: (k % columns) * side,
        y: Math.floor(k / columns) * side,
        width: side,
        height: side,
        fill: shade(value / limit),
        "data-share": value / limit,
      }),
    );
    // A dash says below zero to those who do not see blue from red.
    if (value / limit < -0.04) svg.append(draw("path", { class: "below", d: `M${(k % columns) * side + 3} ${Math.floor(k / columns) * side + side / 2}h${side - 6}` }));
  });
  return svg;
}

repaints.push(() => {
  for (const cell of document.querySelectorAll(".cells rect")) cell.setAttribute("fill", shade(Number(cell.dataset.share)));
});

/** The colour of a share between −1 and 1. */
function shade(share) {
  const { bytes } = colours();
  const at = 3 * (127 + Math.round(Math.max(Math.min(share, 1), -1) * 127));
  return `rgb(${bytes[at]} ${bytes[at + 1]} ${bytes[at + 2]})`;
}
