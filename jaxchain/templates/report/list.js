// Long lists: only the lines in sight are elements, so that 20,000 lines scroll as lightly as 20.

/** Fill `box`, which scrolls, with `count()` lines of one height; `line(k)` makes one. */
function longList(box, { height, count, line, attributes = {} }) {
  const all = make("div", { class: "lines", ...attributes });
  let drawn = "";

  function render(force) {
    const first = Math.max(Math.floor(box.scrollTop / height) - 20, 0);
    const last = Math.min(Math.ceil((box.scrollTop + (box.clientHeight || 400)) / height) + 20, count());
    if (!force && drawn === `${first} ${last}`) return;
    drawn = `${first} ${last}`;
    const lines = [];
    for (let k = first; k < last; k += 1) {
      const element = line(k);
      element.style.top = `${k * height}px`;
      lines.push(element);
    }
    all.style.height = `${count() * height}px`;
    const whole = first === 0 && last === count();
    box.dataset.printed = whole ? "" : `lines ${first + 1} to ${last} of ${count().toLocaleString("en")}`;
    all.replaceChildren(...lines);
  }

  box.append(all);
  box.addEventListener(
    "scroll",
    eachFrame(() => render(false)),
    { passive: true },
  );
  return {
    all,
    render: () => render(true),
    /** Scroll the box, never the page, so that a line is in sight. */
    reveal(k) {
      const top = k * height;
      const room = box.clientHeight - Math.min(8 * height, box.clientHeight / 2);
      if (top < box.scrollTop || top > box.scrollTop + room) box.scrollTop = Math.max(top - 2 * height, 0);
      render(true);
    },
  };
}
