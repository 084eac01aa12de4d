// Along the chain: where states, tangents and cotangents grow or die, and what the singular values say of it.

const NORMS = [
  { key: "primal", name: "state", kind: "state", label: "state" },
  { key: "tangent", name: "tangent", kind: "forward", label: "tangent →" },
  { key: "cotangent", name: "cotangent", kind: "reverse", label: "← cotangent" },
];

function startAlong() {
  const places = [norms(), bands(), gradients()];
  let marks = [];
  const render = () => {
    marks = places.map((place) => place()).filter(Boolean);
  };
  render();
  follow(["stage"], () => marks.forEach((mark) => mark()));
  onWidth(render);
}

/** A state without numbers has no norm. */
const normOf = (key) => (state) => (state.size ? state[key] : null);

function norms() {
  const { states } = data;
  const lines = NORMS.map((line) => ({ ...line, values: states.map(normOf(line.key)) })).filter(({ values }) =>
    values.some((value) => value !== null),
  );
  if (!lines.length) {
    byId("norms").replaceChildren(make("p", { class: "note" }, "The states hold no numbers."));
    return () => null;
  }
  const words = lines
    .filter(({ key }) => key !== "primal")
    .map((line) => growth(line.name, line.values, line.key === "cotangent"));
  const troubles = lines.map(({ name, values }) => trouble(name, values)).filter(Boolean);
  const text = [...words, ...troubles].filter(Boolean).join(" ");
  say(byId("growth"), text);
  const tell = (k = selection.stage + 1) =>
    `${states[k].name}: ${lines.map(({ name, values }) => `${name} ${short(values[k])}`).join(", ")}`;
  return () =>
    plot(byId("norms"), {
      lines,
      tell,
      height: 230,
      label: `Norms by state, logarithmic. ${text}`,
      axis: states.map(({ name }) => name),
      span: () => [selection.stage, selection.stage + 1],
      pick: (k) => choose({ stage: Math.max(k - 1, 0) }),
    });
}

function bands() {
  const sigmas = data.stages.map(({ sigma }) => sigma);
  const root = byId("bands");
  if (!data.stages.some(({ sigma, largest }) => sigma?.length || largest !== null)) {
    root.replaceChildren(make("p", { class: "note" }, "No stage’s singular values were computed."));
    return () => null;
  }
  const decomposed = sigmas.filter((sigma) => sigma?.length).length;
  if (decomposed < sigmas.length)
    say(
      byId("bands-note"),
      `Known of ${decomposed} of the ${plural(sigmas.length, "stage")}; of others, the largest, from below, where it could be had.`,
    );
  const pick = (one) => sigmas.map((sigma) => (sigma?.length ? one(sigma) : null));
  const lines = [
    {
      name: "largest",
      kind: "state",
      label: "largest",
      values: data.stages.map(({ sigma, largest }) => (sigma?.length ? sigma[0] : (largest?.[0] ?? null))),
    },
    { name: "median", kind: "middle", label: "median", values: pick((sigma) => sigma[Math.floor(sigma.length / 2)]) },
    { name: "smallest", kind: "low", label: "smallest", values: pick((sigma) => sigma.at(-1)) },
  ];
  const tell = (k = selection.stage) =>
    `${data.stages[k].name}: ${lines.map(({ name, values }) => `${name} ${short(values[k])}`).join(", ")}`;
  return () =>
    plot(root, {
      ...overStages,
      lines,
      tell,
      height: 180,
      area: [0, 2],
      label: "Largest, median and smallest singular value of each stage’s Jacobian, logarithmic.",
    });
}

const overStages = {
  offset: 0.5,
  get axis() {
    return data.stages.map(({ name }) => name);
  },
  get count() {
    return data.stages.length + 1;
  },
  span: () => [selection.stage, selection.stage + 1],
  pick: (k) => choose({ stage: k }),
};

function gradients() {
  const values = data.stages.map(({ gradient }) => gradient);
  const root = byId("gradients");
  if (!values.some((value) => value !== null)) {
    root.replaceChildren(make("p", { class: "note" }, "No stage reads an argument beside its state."));
    return () => null;
  }
  const line = { name: "gradient", kind: "reverse", label: "gradient", values, bridged: true };
  const tell = (k = selection.stage) =>
    `${data.stages[k].name}: ${values[k] === null ? "none" : `gradient ${short(values[k])}`}`;
  return () =>
    plot(root, {
      ...overStages,
      lines: [line],
      tell,
      height: 150,
      label: "Norm of the gradient of what each stage reads beside its state, its parameters or what is made of them, logarithmic.",
    });
}
