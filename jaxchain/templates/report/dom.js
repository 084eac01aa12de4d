// Elements: made from words, never from markup, so that no name in a program can become part of the page.

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Write a text only where it differs: a live region then speaks once. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Run at most once a frame, with the latest arguments. */
function eachFrame(action) {
  let waiting = false;
  let latest = [];
  return (...values) => {
    latest = values;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      action(...latest);
    });
  };
}

/** Run whenever the page has become wider or narrower. */
function onWidth(action) {
  let width = document.body.clientWidth;
  window.addEventListener(
    "resize",
    eachFrame(() => {
      if (document.body.clientWidth === width) return;
      width = document.body.clientWidth;
      action();
    }),
  );
}
