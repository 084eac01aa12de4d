// The selected stage: its Jacobian to read entry by entry, its numbers, its singular values.

function startStage() {
  const show = heatMap(byId("stage-figure"), byId("hover"), { widest: 520, tallest: 300 });
  const showBlocks = heatMap(byId("positions-figure"), byId("positions-hover"), { widest: 240, tallest: 180 });
  const update = () => {
    showStage(show, selection.stage);
    showPositions(showBlocks, data.stages[selection.stage]);
  };
  follow(["stage"], update);
  update();
}

function showStage(show, k) {
  const stage = data.stages[k];
  const [before, after] = [data.states[k], data.states[k + 1]];
  say(byId("stage-name"), stage.name);
  const where = `stage ${(k + 1).toLocaleString("en")} of ${data.stages.length.toLocaleString("en")}`;
  say(byId("stage-words"), [`${where}, Jacobian ${stage.m} × ${stage.n}`, stage.words].filter(Boolean).join(" · "));
  byId("stage-signs").replaceChildren(
    ...stage.signs.map((name) => ("⊗+".includes(name) ? name : draw("svg", {}, draw("use", { href: `#sign-${name}` })))),
  );
  const label = `Heat map of the Jacobian of ${stage.name}, ${stage.m} × ${stage.n}; arrow keys move over its entries.`;
  const hint = "Point at an entry to read it, or use the arrow keys here.";
  show(stage.picture, {
    rows: axisWords("output", stage.m, after),
    columns: axisWords("input", stage.n, before),
    label,
    hint,
  });
  say(
    byId("stage-figure").querySelector(".remark"),
    stage.picture ? stage.picture.note : `No picture: ${stage.why_not || "none was made."}`,
  );
  showValues(stage, before, after);
  showSpectrum(stage);
}

/** Which position of a sequence depends on which. */
function showPositions(show, { name, positions }) {
  byId("positions-figure").hidden = !positions;
  if (!positions) return;
  const label = `Norms of the blocks of the Jacobian of ${name} between its positions; arrow keys move over them.`;
  show(positions, { rows: "position of the output", columns: "position of the input", label, hint: "" });
}

function showValues(stage, before, after) {
  const list = byId("stage-values");
  Object.assign(list.dataset, {
    primal: String(after.primal),
    tangent: String(after.tangent),
    cotangent: String(after.cotangent),
    primalBefore: String(before.primal),
    tangentBefore: String(before.tangent),
    cotangentBefore: String(before.cotangent),
  });
  const pair = (word, from, to, arrow, mode) =>
    from === null && to === null
      ? []
      : row(word, [figure(from), make("span", { class: `arrow ${mode}` }, ` ${arrow} `), figure(to)]);
  const row = (word, value) => [make("div", {}, make("dt", {}, word), make("dd", {}, value))];
  const made = stage.aside && stage.aside !== stage.parameters; // of the parameters, before the chain
  const count = made ? stage.aside : stage.parameters;
  list.replaceChildren(
    ...row("shapes", [`${stage.in_shape} → ${stage.out_shape}`]),
    ...pair("state ‖x‖", before.primal, after.primal, "→", ""),
    ...pair("tangent ‖ẋ‖", before.tangent, after.tangent, "→", "forward"),
    ...pair("cotangent ‖x̄‖", before.cotangent, after.cotangent, "←", "reverse"),
    ...(stage.times !== null ? row("× cotangent", [figure(stage.times)]) : []),
    ...(count ? row(made ? "side inputs" : "parameters", [count.toLocaleString("en")]) : []),
    ...(stage.gradient !== null ? row("side inputs’ gradient", [figure(stage.gradient)]) : []),
    ...(stage.flops !== null ? row("work", [si(stage.flops, "FLOP")]) : []),
    ...(stage.source ? row("source", [make("code", {}, stage.source)]) : []),
  );
}

function showSpectrum({ sigma, largest, sigma_note: remark }) {
  const root = byId("spectrum");
  if (largest !== null) {
    const many = largest.length > 1;
    const words = `${many ? `The ${largest.length} largest singular values` : "The largest singular value"}: ${largest.map(short).join(", ")}.`;
    root.replaceChildren(make("h3", {}, "Singular values"), make("p", { class: "note" }, `${words} ${remark}`));
    return;
  }
  if (!sigma || !sigma.length) {
    root.replaceChildren(...(remark ? [make("p", { class: "note" }, `No singular values: ${remark}`)] : []));
    return;
  }
  const [first, last] = [sigma[0], sigma.at(-1)];
  const words =
    sigma.length === 1
      ? `One singular value: ${short(first)}.`
      : `Singular values from ${short(first)} down to ${short(last)}.`;
  const place = make("div", { class: "plot" });
  root.replaceChildren(
    make("h3", {}, "Singular values"),
    make("p", { class: "note" }, [words, remark].filter(Boolean).join(" ")),
    place,
  );
  if (sigma.length > 1) {
    const line = { name: "σ", values: sigma, kind: "state", label: `${short(last)}` };
    plot(place, { lines: [line], height: 110, label: words, axis: ["largest", "smallest"], quiet: true });
  }
}
