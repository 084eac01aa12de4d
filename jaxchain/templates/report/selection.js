// One selection rules the page, a stage, a mode and a step of it, and it is in the address.

const MODES = ["forward", "reverse", "mixed"];
const selection = { stage: 0, mode: "reverse", step: 0 };
const listeners = [];

/** Call `listener(selection, changed)` now and whenever one of the named parts changes. */
function follow(parts, listener) {
  listeners.push({ parts, listener });
}

const stepsOf = (mode) => data.ways[mode].steps;

/** Change the selection; everything on the page that depends on what changed is told. */
function choose(change) {
  const before = { ...selection };
  Object.assign(selection, change);
  const changed = Object.keys(before).filter((part) => before[part] !== selection[part]);
  if (changed.length) announce(changed);
  byId("message").hidden = true;
  writeAddress();
}

function announce(changed) {
  for (const { parts, listener } of listeners) {
    if (parts.some((part) => changed.includes(part))) listener(selection);
  }
}

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

let pending = 0;
let written = [];

/** Browsers limit how often an address may change: at once, but when it changes fast only at the next pause. */
function writeAddress() {
  clearTimeout(pending);
  written = written.filter((time) => time > performance.now() - 10000);
  if (written.length > 60) {
    pending = setTimeout(writeAddress, 500);
    return;
  }
  written.push(performance.now());
  try {
    history.replaceState(null, "", addressOf(selection));
  } catch {
    // The address is a convenience: a page inside a frame may not be allowed to change it.
  }
}

/** What an address asks for, and in words what of it cannot be had. */
function readAddress(hash) {
  const asked = {};
  const refused = [];
  for (const part of hash.replace(/^#/, "").split("&")) {
    const [key, raw] = [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)];
    let value = raw;
    try {
      value = decodeURIComponent(raw);
    } catch {
      refused.push(`“${raw}” in the address cannot be read`);
      continue;
    }
    if (key === "stage") {
      const stage = data.stages.findIndex(({ name }) => name === value);
      if (stage < 0) refused.push(`there is no stage “${value}”`);
      else asked.stage = stage;
    } else if (key === "mode") {
      if (MODES.includes(value)) asked.mode = value;
      else refused.push(`there is no mode “${value}”, only forward, reverse and mixed`);
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
  byId("message").hidden = !refused.length;
  say(byId("message"), refused.length ? `In the address: ${refused.join("; ")}.` : "");
}
