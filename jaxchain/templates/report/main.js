// Begin: unpack, choose what to show first, draw every part, follow the address.

async function begin() {
  try {
    await unpack();
  } catch (error) {
    console.error(error);
    const message = byId("message");
    say(
      message,
      "This browser cannot unpack the page’s data (it needs DecompressionStream), so only the tables are shown.",
    );
    message.hidden = false;
    return;
  }
  document.documentElement.classList.add("drawn");
  selection.mode = data.plan.mode;
  selection.stage = firstToShow();
  if (location.hash.includes("=")) followAddress();
  for (const start of [startProduct, startSteps, startStage, startAlong, startPrograms, startTrace, watchGround])
    start();
  markTable();
  window.addEventListener("hashchange", followAddress);
  document.documentElement.dataset.ready = "true";
}

/** The selected stage's row in the table of all stages. */
function markTable() {
  const rows = document.querySelectorAll(".stages tr[data-stage]");
  let marked = null;
  const mark = () => {
    marked?.classList.remove("selected");
    marked?.removeAttribute("aria-current");
    marked = rows[selection.stage];
    marked.classList.add("selected");
    marked.setAttribute("aria-current", "true");
  };
  mark();
  follow(["stage"], mark);
}

/** The first stage with a picture that has more to see than a diagonal: the first with parameters, else the first. */
function firstToShow() {
  const found = data.stages.findIndex(({ picture, parameters }) => picture && parameters);
  return Math.max(found, 0);
}

begin();
