// Any picture of the page as a file, SVG or PNG: what is drawn and written in a part of it, at its place.

const INLINED = "fill stroke stroke-width stroke-dasharray stroke-opacity fill-opacity opacity font-family font-size font-weight text-anchor".split(" ");

/** Offer to save what stands in `root`, by a line at its end; `name` is the file's, without its ending. */
function saver(root, name) {
  const button = (word, ending, write) =>
    make(
      "button",
      {
        type: "button",
        class: "tab",
        "aria-label": `Save as ${word}: ${root.getAttribute("aria-label") ?? name}`,
        onclick: async () => download(await write(svgOf(root)), `${name}.${ending}`),
      },
      word,
    );
  const asFile = (svg) => new Blob([svg.text], { type: "image/svg+xml" });
  const line = make("p", { class: "save" }, "save ", button("SVG", "svg", asFile), " ", button("PNG", "png", pngOf));
  if (root.tagName === "FIGURE") root.append(line);
  else root.after(line);
}

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = make("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** Images, drawings and words of an element and those in it, as one drawing that needs no style sheet. */
function svgOf(root) {
  const bounds = root.getBoundingClientRect();
  const [width, height] = [Math.max(root.scrollWidth, bounds.width), Math.max(root.scrollHeight, bounds.height)].map(Math.ceil);
  const place = (box) => ({ x: box.left - bounds.left + root.scrollLeft, y: box.top - bounds.top + root.scrollTop });
  const ground = getComputedStyle(document.documentElement).backgroundColor;
  const out = draw("svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}` });
  out.append(draw("rect", { width, height, fill: ground }));
  for (const part of root.querySelectorAll("canvas, svg")) {
    const box = part.getBoundingClientRect();
    if (!box.width) continue;
    const size = { ...place(box), width: box.width, height: box.height };
    if (part instanceof HTMLCanvasElement) {
      const stroke = draw("rect", { ...size, fill: "none", stroke: getComputedStyle(part).color, "stroke-width": 0.5 });
      out.append(draw("image", { ...size, href: part.toDataURL() }), stroke);
    } else {
      const copy = plainCopy(part);
      for (const [key, value] of Object.entries(size)) copy.setAttribute(key, value);
      out.append(copy);
    }
  }
  for (const line of linesIn(root)) out.append(textOf(line, place));
  return { text: new XMLSerializer().serializeToString(out), width, height };
}

/** A drawing with the styles that it has here written on it. */
function plainCopy(svg) {
  const copy = svg.cloneNode(true);
  const [from, to] = [svg, copy].map((one) => [one, ...one.querySelectorAll("*")]);
  from.forEach((element, k) => {
    const style = getComputedStyle(element);
    for (const key of INLINED) to[k].style.setProperty(key, style.getPropertyValue(key));
  });
  return copy;
}

/** Every line of words in an element that is seen, outside drawings, with the box where it begins. */
function* linesIn(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (parent.closest("svg, .save, details:not([open]) > :not(summary)")) continue;
    const [range, lines] = [document.createRange(), []];
    for (const { 0: word, index } of node.data.matchAll(/\S+\s*/g)) {
      range.setStart(node, index);
      range.setEnd(node, index + word.trimEnd().length);
      const box = range.getBoundingClientRect();
      const last = lines.at(-1);
      if (last && Math.abs(last.box.top - box.top) < 2) last.text += word;
      else if (box.width) lines.push({ text: word, box, style: getComputedStyle(parent) });
    }
    yield* lines;
  }
}

function textOf({ text, box, style }, place) {
  const { x, y } = place(box);
  return draw(
    "text",
    {
      x,
      y: y + 0.78 * box.height,
      fill: style.color,
      "font-family": style.fontFamily,
      "font-size": style.fontSize,
      "font-weight": style.fontWeight,
    },
    text,
  );
}

/** The drawing as pixels, twice as many as here. */
async function pngOf({ text, width, height }) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = make("canvas", { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function startSavers() {
  const parts = { factors: "product", "step-figure": "known", "stage-figure": "stage", "positions-figure": "positions", sum: "sum", attention: "attention", norms: "norms", bands: "singular_values", gradients: "gradients", graph: "graph" };
  for (const [id, name] of Object.entries(parts)) if (byId(id)?.childElementCount) saver(byId(id), name);
}
