// A logarithmic axis: its range, its ticks, and where a value lies on it. What has no logarithm lies at an edge.

/** The axis for some values, as `place(value)` in [0, 1] from the bottom, and ticks. */
function logAxis(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value > 0 && Number.isFinite(value)) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (high < low) [low, high] = [1, 1];
  let [from, to] = [Math.log10(low), Math.log10(high)];
  const margin = Math.max((to - from) * 0.06, 0.06);
  [from, to] = [from - margin, to + margin];
  return { place: (value) => (Math.log10(value) - from) / (to - from), ticks: ticksBetween(from, to) };
}

/** Powers of ten where the axis spans several, else 1, 2, 5 between them, else round numbers. */
function ticksBetween(from, to) {
  const decades = to - from;
  const within = (value) => Math.log10(value) >= from && Math.log10(value) <= to;
  if (decades > 2) {
    const stride = Math.ceil(decades / 5);
    const ticks = [];
    for (let power = Math.ceil(from / stride) * stride; power <= to; power += stride) ticks.push(10 ** power);
    return ticks.filter((tick) => tick > 0 && Number.isFinite(tick));
  }
  const ticks = [];
  for (let power = Math.floor(from); power <= to; power += 1) {
    for (const step of decades > 1 ? [1, 3] : [1, 2, 5]) ticks.push(step * 10 ** power);
  }
  if (ticks.filter(within).length >= 2) return ticks.filter(within).map((tick) => Number(tick.toPrecision(3)));
  const [low, high] = [10 ** from, 10 ** to];
  const step = 10 ** Math.floor(Math.log10((high - low) / 2));
  const stride = step * ([5, 2, 1].find((times) => (high - low) / (step * times) >= 2) ?? 1);
  const even = [];
  for (let k = Math.ceil(low / stride); k * stride <= high; k += 1) even.push(Number((k * stride).toPrecision(6)));
  return even;
}

/** Places for labels, in order of their targets and at least a gap apart, as near to them as can be. */
function spread(targets, gap, most) {
  const order = targets.map((_, k) => k).sort((a, b) => targets[a] - targets[b]);
  const pools = [];
  order.forEach((index, rank) => {
    pools.push([targets[index] - rank * gap]);
    const mean = (pool) => pool.reduce((sum, value) => sum + value, 0) / pool.length;
    while (pools.length > 1 && mean(pools.at(-2)) > mean(pools.at(-1))) pools.push([...pools.splice(-2).flat()]);
  });
  const free = pools.flatMap((pool) => pool.map(() => pool.reduce((sum, value) => sum + value, 0) / pool.length));
  const places = [];
  const room = Math.max(most - (order.length - 1) * gap, 0);
  order.forEach((index, rank) => {
    places[index] = Math.min(Math.max(free[rank], 0), room) + rank * gap;
  });
  return places;
}
