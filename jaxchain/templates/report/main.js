// Begin: choose what to show first, draw every part, follow the address.

function drawReport() {
  readNumbers();
  selection.mode = data.plan.mode;
  selection.stage = firstToShow();
  if (location.hash.includes("=")) followAddress();
  for (const start of [startProduct, startSteps, startStage, startAttention, startSum, startAlong, startPrograms, startTrace, startGraph, startSavers, watchGround])
    start();
  markTable(document.querySelectorAll(".stages tr[data-stage]"));
  window.addEventListener("hashchange", followAddress);
}

function readNumbers() {
  for (const state of data.states) {
    for (const key of ["primal", "tangent", "cotangent"]) state[key] = read(state[key]);
  }
  for (const stage of data.stages) {
    stage.gradient = read(stage.gradient);
    stage.flops = read(stage.flops);
    stage.times = read(stage.times);
    stage.largest = stage.largest ? stage.largest.map(read) : null;
    stage.sigma = stage.sigma && stage.sigma.map(read);
  }
}

/** The first stage with a picture that has more to see than a diagonal: the first with parameters, else the first. */
function firstToShow() {
  const found = data.stages.findIndex(({ picture, parameters }) => picture && parameters);
  return Math.max(found, 0);
}

begin(drawReport);
