// Stepping is the lesson: each step multiplies one factor, says so, and shows the Jacobian known then.

const SLOWEST = 1100;
const LESSONS = {
  forward: "The product grows from the right, towards the output; the work goes with the number of inputs.",
  reverse: "The product grows from the left, towards the input; the work goes with the number of outputs.",
  planned: "It may begin anywhere: where the chain is narrow, the matrices stay small.",
};
let timer = 0;

function startSteps() {
  const most = Math.max(...MODES.map((mode) => read(data.ways[mode].cost) ?? 0), 1e-300);
  for (const mode of MODES) {
    const button = byId(`mode-${mode}`);
    button.addEventListener("click", () => {
      pause();
      goTo(0, mode);
    });
    const cost = read(data.ways[mode].cost);
    const track = button.querySelector(".way-bar > span");
    track.style.width = cost === null ? "0" : `max(${(100 * cost) / most}%, 2px)`;
  }
  byId("next").addEventListener("click", () => manual(selection.step + 1));
  byId("previous").addEventListener("click", () => manual(selection.step - 1));
  byId("play").addEventListener("click", () => (timer ? pause() : play()));
  document.addEventListener("keydown", onKey);
  const show = heatMap(byId("step-figure"), byId("step-hover"), { widest: 420, tallest: 230 });
  const update = () => showStep(show);
  follow(["mode", "step"], update);
  update();
}

function manual(step) {
  pause();
  goTo(step);
}

function play() {
  const steps = stepsOf(selection.mode).length;
  if (!steps) return;
  if (selection.step >= steps) goTo(0);
  const pace = Math.max(120, Math.min(SLOWEST, 40000 / steps));
  timer = setInterval(() => {
    goTo(selection.step + 1);
    if (selection.step >= stepsOf(selection.mode).length) pause();
  }, pace);
  showPlaying();
}

function pause() {
  clearInterval(timer);
  timer = 0;
  showPlaying();
}

function showPlaying() {
  say(byId("play"), timer ? "pause" : "play");
  byId("play").setAttribute("aria-pressed", String(Boolean(timer)));
}

/** Keys step, unless they belong to what has the focus. */
function onKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest("input, textarea, select, canvas, .scroll")) return;
  if (event.key === " " && target.closest("button, a, summary")) return;
  const actions = {
    ArrowRight: () => manual(selection.step + 1),
    ArrowLeft: () => manual(selection.step - 1),
    Home: () => manual(0),
    End: () => manual(stepsOf(selection.mode).length),
    " ": () => (timer ? pause() : play()),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

function showStep(show) {
  const { mode, step } = selection;
  const way = data.ways[mode];
  const now = way.steps[step - 1];
  for (const name of MODES) {
    const button = byId(`mode-${name}`);
    button.setAttribute("aria-pressed", String(name === mode));
    const done = name === mode && step ? read(way.steps[step - 1].total) / (read(way.cost) || 1) : 0;
    button.querySelector(".way-bar > span > span").style.width = `${100 * Math.min(done || 0, 1)}%`;
  }
  document.querySelector(".lesson").dataset.mode = mode;
  byId("previous").disabled = step === 0;
  byId("next").disabled = step >= way.steps.length;
  byId("play").disabled = !way.steps.length;
  say(byId("way-start"), way.steps.length ? `${way.start} ${LESSONS[mode]}` : way.start);
  byId("sentence").replaceChildren(...(now ? sentence(now, step, way.steps.length) : beginning(way)));
  showKnown(show, way, now);
}

const sentence = ({ text, arithmetic, cost, total }, step, steps) => [
  `${step} of ${steps}: ${text}  `,
  arithmetic ? make("code", { class: "arithmetic" }, arithmetic) : "",
  make("span", { class: "work" }, `${si(read(cost))} multiply-adds, ${si(read(total))} so far`),
];

function beginning({ steps }) {
  return steps.length
    ? [`0 of ${steps.length}: nothing is multiplied yet. `, make("span", { class: "go" }, "▶ takes the first step.")]
    : ["There are no steps to take."];
}

/** The Jacobian known after this step; before the first, the one that every way arrives at. */
function showKnown(show, way, now) {
  const last = [way, data.ways.reverse, data.ways.forward].find(({ steps }) => steps.at(-1)?.picture)?.steps.at(-1);
  const shown = now ?? last;
  const caption = byId("step-caption");
  if (!shown) {
    say(caption, "There is no Jacobian to show.");
    return show(null, { rows: "", columns: "", label: "", hint: "" });
  }
  const [m, n] = shown.shape;
  const [from, to] = [data.states[shown.from], data.states[shown.to]];
  const [into, out] = [from.name, to.name];
  say(caption, `${now ? "Known now" : "What every order arrives at"}: ∂${out}/∂${into}, ${m} × ${n}`);
  const label = `Heat map of ∂${out}/∂${into}, ${m} × ${n}; arrow keys move over its entries.`;
  show(shown.picture, {
    rows: axisWords(out, m, to),
    columns: axisWords(into, n, from),
    label,
    hint: "Point at an entry to read it.",
  });
  say(
    byId("step-figure").querySelector(".remark"),
    shown.picture ? shown.picture.note : "There is no picture of this matrix.",
  );
}
