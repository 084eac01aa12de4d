// Two Jacobians and their difference: three heat maps with one crosshair, the two sides on one colour scale.

/** Makes the three maps of a `.trio`; the result shows a row's pictures under a name. */
function trio(root, reading) {
  let shown = null;
  const aimed = (cell) => {
    maps.forEach((map) => map.aim(cell));
    tell(cell);
  };
  const figures = [...root.querySelectorAll("figure")];
  const maps = figures.map((figure) => heatMap(figure, make("output"), { widest: 420, tallest: 380, aimed }));

  function tell(cell) {
    const known = shown.pictures.map((picture) => picture && entryOf(picture, cell));
    const first = known.find(Boolean);
    Object.assign(reading.dataset, { row: first.row, column: first.column });
    ["a", "b", "difference"].forEach((key, k) => {
      if (known[k]) reading.dataset[key] = known[k].digits;
      else delete reading.dataset[key];
    });
    const words = [...data.names, "difference"].map((name, k) => known[k] && `${name} ${known[k].text}`);
    say(reading, `${first.place}${first.block ? ", largest" : ""}: ${words.filter(Boolean).join(" · ")}`);
  }

  return ({ name, a, b, pictures, words, why, complex }) => {
    shown = { pictures: pictures ?? [null, null, null] };
    for (const key of ["row", "column", "a", "b", "difference"]) delete reading.dataset[key];
    const known = shown.pictures.some(Boolean);
    say(reading, known ? "Point at an entry to read it on both sides, or use the arrow keys on a map." : "");
    root.hidden = !known;
    shareScale(shown.pictures.slice(0, 2).filter(Boolean));
    maps.forEach((map, k) => {
      const picture = shown.pictures[k];
      const [m, n] = picture?.shape ?? (a ?? b).shape ?? [0, 0];
      const title = k < 2 ? `the Jacobian of ${name} in ${data.names[k]}` : `the difference of the Jacobians of ${name}`;
      map(picture, {
        rows: axisWords("output", m, { complex: complex?.[1] }),
        columns: axisWords("input", n, { complex: complex?.[0] }),
        label: `Heat map of ${title}, ${m} × ${n}; arrow keys move over its entries.`,
        hint: "",
      });
      say(figures[k].querySelector(".words"), k < 2 ? (words?.[k] ?? "") : `${data.names[1]} − ${data.names[0]}, on a scale of its own`);
      const reason = why?.[k] || (k < 2 ? "Its Jacobian was not computed." : "There is nothing to subtract.");
      say(figures[k].querySelector(".remark"), picture ? picture.note : reason);
    });
  };
}

/** One limit for the colours of both, so that equal colours are equal numbers. */
function shareScale(pictures) {
  const all = pictures.map(cells);
  const limit = Math.max(...all.map((one) => (one.largest > 0 ? one.limit : 0))) || 1;
  for (const one of all) Object.assign(one, { limit, clipped: one.largest > limit });
}
