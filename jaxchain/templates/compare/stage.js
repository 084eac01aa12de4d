// The selected row: its norms on both sides, how the Jacobians differ, the three heat maps.

const KINDS = [
  ["state", "‖state‖"],
  ["tangent", "‖tangent‖"],
  ["cotangent", "‖cotangent‖"],
  ["jacobian", "‖Jacobian‖"],
  ["gradient", "‖gradient‖"],
];

function startStage() {
  const show = trio(byId("jacobians"), byId("jacobians-reading"));
  const update = () => {
    const row = data.rows[selection.stage];
    show(row);
    showNumbers(row);
  };
  byId("next").addEventListener("click", () => goTo(selection.stage + 1));
  byId("previous").addEventListener("click", () => goTo(selection.stage - 1));
  document.addEventListener("keydown", onKey);
  follow(["stage"], update);
  update();
}

function startWhole() {
  if (!data.whole) return;
  trio(byId("whole"), byId("whole-reading"))(data.whole);
  say(byId("whole-sentence"), howFar(data.whole));
}

function showNumbers(row) {
  say(byId("stage-name"), row.name);
  say(byId("stage-place"), `${selection.stage + 1} of ${data.rows.length.toLocaleString("en")}`);
  byId("previous").disabled = selection.stage === 0;
  byId("next").disabled = selection.stage === data.rows.length - 1;
  say(byId("sentence"), howFar(row));
  const known = KINDS.filter(([key]) => SIDES.some((side) => valueOf(row, side, key) !== null));
  const heads = [["norm", null], ...data.names.map((name) => [brief(name, 14), name]), ["ratio", [...data.names].reverse().join(" / ")]];
  const head = heads.map(([word, title]) => make("th", { scope: "col", title }, word));
  byId("values").replaceChildren(
    make("thead", {}, make("tr", {}, head)),
    make("tbody", {}, known.map(([key, title]) => valuesOf(row, key, title))),
  );
}

const valueOf = (row, side, key) => row[side]?.[key] ?? null;

function valuesOf(row, key, title) {
  const [a, b] = SIDES.map((side) => valueOf(row, side, key));
  const ratio = a === null || b === null || (a === 0 && b === 0) ? null : b / a;
  return make(
    "tr",
    { "data-quantity": key },
    make("th", { scope: "row" }, title),
    [a, b].map((value) => make("td", {}, figure(value))),
    make("td", {}, ratio === null ? "–" : ["×", figure(ratio)]),
  );
}

/** How far the two Jacobians of a row are apart, in a sentence. */
function howFar(row) {
  const missing = SIDES.findIndex((side) => !row[side]);
  if (missing >= 0) return `${data.names[missing]} has no stage that stands beside this one.`;
  if (!row.a.shape) return "The input of both chains: there is no Jacobian before the first stage.";
  if (row.difference === null) return "Not both Jacobians are known, so they have no difference here.";
  if (row.difference === 0) return "The two Jacobians are equal.";
  return `The difference of the two Jacobians has ${percent(row)} of the norm that the Jacobian has in ${data.names[0]}.`;
}
