// Begin: read the numbers, choose what to show first, draw every part, follow the address.

function drawComparison() {
  for (const row of [...data.rows, ...(data.whole ? [data.whole] : [])]) readRow(row);
  selection.stage = firstToShow();
  followAddress();
  for (const start of [startAlong, startStage, startWhole, watchGround]) start();
  markTable(document.querySelectorAll(".stages tr[data-stage]"));
  onWidth(() => repaints.forEach((repaint) => repaint()));
  window.addEventListener("hashchange", followAddress);
}

function readRow(row) {
  row.difference = read(row.difference);
  for (const side of SIDES) {
    if (row[side]) for (const [key] of KINDS) row[side][key] = read(row[side][key]);
  }
}

/** The stage whose Jacobians differ most; where none are known, the first. */
function firstToShow() {
  const size = ({ difference }) => (difference === null || Number.isNaN(difference) ? -1 : difference);
  const most = Math.max(...data.rows.map(size));
  return most < 0 ? Math.min(1, data.rows.length - 1) : data.rows.findIndex((row) => size(row) === most);
}

begin(drawComparison);
