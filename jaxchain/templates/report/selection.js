// One selection rules the page, and it is in the address; what is selected, and how it is written, each page says itself.

const selection = {};
const listeners = [];

/** Call `listener(selection)` whenever one of the named parts changes. */
function follow(parts, listener) {
  listeners.push({ parts, listener });
}

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

/** The parts of an address as [key, value]; what cannot be read is added to `refused`, in words. */
function partsOf(hash, refused) {
  const parts = [];
  for (const part of hash.replace(/^#/, "").split("&")) {
    const [key, raw] = [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)];
    try {
      parts.push([key, decodeURIComponent(raw)]);
    } catch {
      refused.push(`“${raw}” in the address cannot be read`);
    }
  }
  return parts;
}

/** Say what of an address cannot be had. */
function tellRefused(refused) {
  byId("message").hidden = !refused.length;
  say(byId("message"), refused.length ? `In the address: ${refused.join("; ")}.` : "");
}

/** The place of a stage that an address names among these; undefined, and told, where there is none. */
function placeOf(name, stages, refused) {
  const place = stages.findIndex((stage) => stage.name === name);
  if (place < 0) refused.push(`there is no stage “${name}”`);
  return place < 0 ? undefined : place;
}

/** Mark the selected stage's row among the rows of a table. */
function markTable(rows) {
  let marked = null;
  const mark = () => {
    marked?.classList.remove("selected");
    marked?.removeAttribute("aria-current");
    marked = rows[selection.stage];
    marked?.classList.add("selected");
    marked?.setAttribute("aria-current", "true");
  };
  mark();
  follow(["stage"], mark);
}
