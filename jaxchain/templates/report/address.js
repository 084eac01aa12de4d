// What is selected on the report's page: a stage, a mode and a step of it; and how its address says so.

const MODES = ["forward", "reverse", "planned"];
Object.assign(selection, { stage: 0, mode: "reverse", step: 0 });

const stepsOf = (mode) => data.ways[mode].steps;

/** Go to a step; the stage that it multiplies becomes the selected one, so that all pictures follow the lesson. */
function goTo(step, mode = selection.mode) {
  const steps = stepsOf(mode);
  const to = Math.min(Math.max(step, 0), steps.length);
  choose({ mode, step: to, ...(to > 0 ? { stage: steps[to - 1].stage } : {}) });
}

const addressOf = ({ stage, mode, step }) => {
  const name = encodeURIComponent(data.stages[stage].name);
  return `#stage=${name}&mode=${mode}&step=${step}`;
};

/** What an address asks for, and in words what of it cannot be had. */
function readAddress(hash) {
  const asked = {};
  const refused = [];
  for (const [key, value] of partsOf(hash, refused)) {
    if (key === "stage") {
      const stage = placeOf(value, data.stages, refused);
      if (stage !== undefined) asked.stage = stage;
    } else if (key === "mode") {
      if (MODES.includes(value)) asked.mode = value;
      else refused.push(`there is no mode “${value}”, only forward, reverse and planned`);
    } else if (key === "step") asked.step = value;
  }
  if (asked.step !== undefined) {
    const most = stepsOf(asked.mode ?? selection.mode).length;
    if (/^\d+$/.test(asked.step) && Number(asked.step) <= most) asked.step = Number(asked.step);
    else {
      refused.push(`there is no step “${asked.step}”, only 0 to ${most}`);
      delete asked.step;
    }
  }
  return { asked, refused };
}

/** Follow the address, where it holds a selection; a step without a stage selects the stage that it multiplies. */
function followAddress() {
  if (!location.hash.includes("=")) return;
  const { asked, refused } = readAddress(location.hash);
  const mode = asked.mode ?? selection.mode;
  if (mode !== selection.mode && asked.step === undefined) asked.step = 0;
  if (asked.step && asked.stage === undefined) asked.stage = stepsOf(mode)[asked.step - 1].stage;
  if (asked.stage !== undefined) unfoldTo(asked.stage);
  choose(asked);
  tellRefused(refused);
}
