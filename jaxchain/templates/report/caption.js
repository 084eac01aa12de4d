// What stands under a factor: so much of its name as tells it from the others in sight, in short lines.

const CAPTION = 16;

/** For each name its lines: the last part of its path, after the first part that differs where others end alike. */
function captionsOf(names) {
  const all = names.map(parse);
  const [alike, cutAlike] = [collect(all, ({ last }) => last), collect(all, ({ last }) => shorten(last).join())];
  return all.map(({ path, last, source }) => {
    const others = alike.get(last);
    const told = cutAlike.get(shorten(last).join()).every((other) => other.last === last);
    const lines = told ? shorten(last) : [brief(last, CAPTION)];
    const place = path.findIndex((part, k) => others.some((other) => other.path[k] !== part));
    if (place >= 0) return [`${brief(path[place], CAPTION - 1)}/`, ...lines];
    return others.some((other) => other.source !== source) ? [...lines, brief(source, CAPTION)] : lines;
  });
}

/** "block_3/tanh_0@model.py:7" as path, last part and source; what is not such a name is one part. */
function parse(name) {
  const [, modules, last, source] = name.match(/^((?:[^/\s<>]+\/)*)([^/@<>]+)(@[^/\s<>]+)?$/) ?? ["", "", name, ""];
  return { path: modules.split("/").filter(Boolean), last, source: source ?? "" };
}

function collect(items, key) {
  const found = new Map();
  for (const item of items) {
    if (!found.has(key(item))) found.set(key(item), []);
    found.get(key(item)).push(item);
  }
  return found;
}

/** A run of stages in two lines, its first and its last; of a long word the end, from where one of its words begins. */
function shorten(name) {
  if (name.length <= CAPTION) return [name];
  const parts = name.split(/ … |\.\.+/);
  return parts.map((part, k) => (k < parts.length - 1 ? `${ending(part, CAPTION - 2)} …` : ending(part, CAPTION)));
}

function ending(part, most) {
  if (part.length <= most) return part;
  const end = part.slice(1 - most);
  const word = end.search(/(?<=[a-z\d])[A-Z]|(?<=[_.\s-])[A-Za-z]/);
  return `…${end.slice(word > 0 && word < most / 2 ? word : 0)}`;
}
