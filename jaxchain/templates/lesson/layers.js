// A digit on its way through the network, and the blame on its way back: every state and cotangent as cells.

pictures.layers = (values) => {
  const id = "layers-sweep";
  const last = values.names.length - 1;
  let chosen = values.digits[0];
  let step = 0;
  let go = null;
  const nameOf = ({ label, read }) => (label === read ? `a ${label}, read as a ${read}` : `a ${label}, misread as a ${read}`);
  buttons(id, "Which digit", values.digits.map(nameOf), (k) => {
    chosen = values.digits[k];
    go(step);
  });
  const cards = values.names.map((name, k) => {
    const card = { state: make("div", { class: "slot" }), back: make("div", { class: "slot" }), norm: make("p", { class: "norm" }) };
    const size = chosen.states[k].length;
    card.element = make("li", {}, make("p", { class: "card-name" }, name, make("span", { class: "size" }, ` ${size}`)), make("p", { class: "row-name" }, "value"), card.state, make("p", { class: "row-name back-row" }, "← cotangent"), card.back, card.norm);
    return card;
  });
  placeOf(id).append(make("ol", { class: "cards" }, ...cards.map(({ element }) => element)));
  const wide = (k) => (k === last ? 5 : 8);
  const strongest = (lists) => Math.max(...lists.flat().map(Math.abs));
  go = stepper(id, () => 2 * last + 2, (to) => {
    step = to;
    const limit = strongest(chosen.cotangents);
    cards.forEach(({ state, back, norm, element }, k) => {
      const forward = to >= k;
      const reverse = to >= 2 * last + 2 - k;
      state.replaceChildren(...(forward ? [cellsOf(chosen.states[k], wide(k), strongest(chosen.states[k]) || 1)] : []));
      back.replaceChildren(...(reverse ? [cellsOf(chosen.cotangents[k], wide(k), limit)] : []));
      say(norm, reverse ? `norm ${digits(chosen.norms[k], 3)}` : "");
      element.classList.toggle("now", to <= last ? to === k : 2 * last + 2 - to === k);
    });
    return wordsOf(values, chosen, to, last);
  });
};

/** Where the entry of largest magnitude is in a picture of 8 by 8, and what it is. */
function strongestOf(list) {
  const k = list.reduce((best, value, place) => (Math.abs(value) > Math.abs(list[best]) ? place : best), 0);
  return `row ${Math.floor(k / 8) + 1}, column ${(k % 8) + 1}: ${digits(list[k], 3)}`;
}

function wordsOf({ names }, digit, step, last) {
  const chance = digits(100 * digit.chances[digit.label], 3);
  if (step === 0) return "The picture, 8 by 8 pixels. Press Next: it goes through the network.";
  if (step < last) return `${names[step]}: ${digit.states[step - 1].length} numbers become ${digit.states[step].length}.`;
  if (step === last) return `${names[last]} gives the scores of the digits 0 to 9. The highest is that of ${digit.read}.`;
  if (step === last + 1) return `As chances, the scores give the right answer, ${digit.label}, ${chance} %. The loss is ${digits(digit.loss, 3)}. Now the way back begins.`;
  const k = 2 * last + 2 - step;
  if (k === last) return `At the scores, the cotangent is chance minus wanted: below zero only at ${digit.label}, whose score should rise, above zero at the others.`;
  if (k === 0) return `At the picture: where a pixel is red, more ink would make the loss larger; where it is blue with a dash, smaller. The strongest is in ${strongestOf(digit.cotangents[0])}. Norm ${digits(digit.norms[0], 3)}.`;
  const zeros = digit.cotangents[k].filter((value) => value === 0).length;
  const off = zeros ? ` ${plural(zeros, "of its numbers is", "of its numbers are")} 0: there ReLU gave 0 on the way to the scores, and nothing passes back.` : "";
  return `Before ${names[k + 1]}, the cotangent of ${names[k]} has ${plural(digit.cotangents[k].length, "number")} and norm ${digits(digit.norms[k], 3)}.${off}`;
}
