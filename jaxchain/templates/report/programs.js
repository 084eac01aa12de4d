// The program and its transforms, two at a time, the selected stage's lines marked in both.

const LINE = 18;

function startPrograms() {
  const panes = [...byId("programs").querySelectorAll(".pane")];
  const names = data.programs.map(({ name }) => name);
  if (!names.length) {
    byId("programs").replaceChildren(make("p", { class: "note" }, "No programs were written down."));
    return;
  }
  const first = Math.max(names.indexOf("fun"), 0);
  const second = names.includes("vjp") ? names.indexOf("vjp") : names.length - 1;
  pane(panes[0], first, "Program");
  if (names.length > 1) pane(panes[1], second, "Program to compare");
  else panes[1].remove();
}

function pane(root, start, title) {
  let shown = start;
  let list = null;
  const buttons = data.programs.map(({ name }, k) =>
    make("button", { type: "button", class: "tab", onclick: () => open(k) }, name),
  );
  const about = make("div", { class: "about" });
  const box = make("div", { class: "scroll program", tabindex: "0", role: "region" });
  root.replaceChildren(make("div", { class: "tabs", role: "group", "aria-label": title }, buttons), about, box);

  function open(k) {
    shown = k;
    const program = data.programs[k];
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === k)));
    about.replaceChildren(...aboutProgram(program));
    box.setAttribute("aria-label", `${title}: ${program.name}, ${plural(program.lines.length, "line")}`);
    box.replaceChildren();
    box.scrollTop = 0;
    list = longList(box, { height: LINE, count: () => program.lines.length, line: (at) => programLine(program, at) });
    list.all.style.minWidth = `${program.lines.reduce((most, [text]) => Math.max(most, text.length), 0) + 9}ch`;
    list.render();
    reveal();
  }

  function reveal() {
    const at = data.programs[shown].lines.findIndex(([, stage]) => stage === selection.stage);
    if (at < 0) list.render();
    else list.reveal(at);
  }
  open(start);
  follow(["stage"], reveal);
}

function aboutProgram({ title, equations, flops, residual_bytes: bytes, note }) {
  const facts = [plural(equations, "equation")];
  if (flops !== null) facts.push(si(read(flops), "FLOP"));
  if (bytes !== null) facts.push(`${si(read(bytes), "B")} of residuals`);
  return [
    make("p", {}, title),
    make("p", { class: "facts-line" }, facts.join(" · ")),
    make("p", { class: "remark" }, note),
  ];
}

function programLine(program, at) {
  const [text, stage] = program.lines[at];
  const here = stage !== null && stage === selection.stage;
  const attributes = { class: `line${here ? " selected" : ""}${stage === null ? "" : " pick"}` };
  if (stage !== null)
    Object.assign(attributes, { "data-stage": stage, title: data.stages[stage].name, onclick: () => takeStage(stage) });
  return make(
    "div",
    attributes,
    make("span", { class: "gutter", "aria-hidden": "true" }, here ? `▸${at + 1}` : String(at + 1)),
    make("code", {}, text),
  );
}

/** Select the stage of what was clicked, unless a person is marking text to copy. */
function takeStage(stage) {
  if (getSelection().isCollapsed) choose({ stage });
}
