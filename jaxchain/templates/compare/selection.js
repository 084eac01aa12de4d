// What is selected on the page of two chains: a row, the input's or a pair of stages; the address names it.

Object.assign(selection, { stage: 0 });

const SIDES = ["a", "b"];

const addressOf = ({ stage }) => `#stage=${encodeURIComponent(data.rows[stage].name)}`;

function followAddress() {
  if (!location.hash.includes("=")) return;
  const refused = [];
  const named = partsOf(location.hash, refused).find(([key]) => key === "stage");
  const stage = named && placeOf(named[1], data.rows, refused);
  if (stage !== undefined) choose({ stage });
  tellRefused(refused);
}

/** Go to a row, or to the nearest that there is. */
function goTo(stage) {
  choose({ stage: Math.min(Math.max(stage, 0), data.rows.length - 1) });
}

/** Keys go from row to row, unless they belong to what has the focus. */
function onKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest("input, textarea, select, canvas, .scroll")) return;
  const { stage } = selection;
  const to = { ArrowRight: stage + 1, ArrowLeft: stage - 1, Home: 0, End: data.rows.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  goTo(to);
}
