// Groups of stages fold into one stack each; what is open is a set, and the product is drawn from what it leaves in sight.

const opened = new Set();

/** What is on show, right to left in the product: leaves, folded groups, and the marks of open groups. */
function visible(groups, prefix, depth = 0) {
  return groups.flatMap((group) => {
    const name = prefix && group.name.startsWith(`${prefix}/`) ? group.name.slice(prefix.length + 1) : group.name;
    if (!group.groups.length || !opened.has(group)) return [{ group, name, depth }];
    return [...visible(group.groups, group.name, depth + 1), { closes: group, name, depth }];
  });
}

/** Unfold the groups that hide a stage. */
function unfoldTo(stage) {
  const before = opened.size;
  const open = (groups) => {
    for (const group of groups) {
      if (group.groups.length && group.first <= stage && stage <= group.last) {
        opened.add(group);
        open(group.groups);
      }
    }
  };
  open(data.groups);
  if (opened.size > before && factors.length) buildFactors();
}

function toggle(group) {
  if (!opened.delete(group)) opened.add(group);
  buildFactors();
  const next = factors.find((entry) => entry.group === group || entry.closes === group);
  next?.button.focus();
}

/** The range over a group's stages of the largest singular values, or of the state norms where those are not known. */
function extremes({ first, last }) {
  const stages = data.stages.slice(first, last + 1);
  const tops = stages
    .map(({ sigma, largest }) => sigma?.[0] ?? largest?.[0])
    .filter((value) => value !== undefined && Number.isFinite(value));
  const [sign, values] = tops.length
    ? ["σ₁", tops]
    : ["‖x‖", data.states.slice(first + 1, last + 2).map(({ primal }) => primal)];
  const finite = values.filter((value) => value !== null && Number.isFinite(value));
  if (!finite.length) return "";
  const [low, high] = [finite.reduce((a, b) => Math.min(a, b)), finite.reduce((a, b) => Math.max(a, b))].map(short);
  return low === high ? `${sign} ${low}` : `${sign} ${low}–${high}`;
}
