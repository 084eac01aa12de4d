// Questions, answers and where one is: kept in the address, so that a reload or a bookmark goes on from there.

const answers = {};
let here = "";

const chapterNames = () => Object.keys(lesson);

/** Right or not, and why, in words. */
function judge(name, given) {
  const { check } = lesson[name];
  if (check.options) {
    const option = check.options[Number(given) - 1];
    return option ? { right: option.right, because: option.because } : null;
  }
  const value = Number(String(given).trim().replace(/[−–]/g, "-").replace(",", "."));
  if (String(given).trim() === "" || Number.isNaN(value)) return null;
  const near = (wanted) => Math.abs(value - wanted) <= check.within * Math.max(Math.abs(wanted), 1e-12);
  if (near(check.answer)) return { right: true, because: check.right };
  const mistake = check.mistakes.find(([known]) => near(known));
  return { right: false, because: mistake ? mistake[1] : check.hint };
}

function answer(name, given) {
  const form = document.querySelector(`form[data-chapter="${name}"]`);
  const verdict = form.querySelector(".verdict");
  const judged = judge(name, given);
  form.classList.toggle("right", Boolean(judged?.right));
  form.classList.toggle("wrong", Boolean(judged && !judged.right));
  if (!judged) {
    verdict.textContent = lesson[name].check.options ? "Choose one of the answers first." : "Write a number first, such as −1.5.";
    return;
  }
  verdict.replaceChildren(make("strong", {}, judged.right ? "✓ Right." : "✗ Not yet."), ` ${judged.because}`);
  answers[name] = String(given).trim();
  markProgress();
}

function markProgress() {
  for (const link of document.querySelectorAll(".chapters a")) {
    const name = link.dataset.chapter;
    link.querySelector(".done").hidden = !(name in answers && judge(name, answers[name])?.right);
  }
}

function writeAddress() {
  const parts = [...(here ? [["at", here]] : []), ...chapterNames().filter((name) => name in answers).map((name) => [name, answers[name]])];
  const hash = parts.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
  try {
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname);
  } catch {
    // A page inside a frame may not be allowed to change its address.
  }
}

/** Answers from the address; the chapter that it names comes into view. */
function readAddress() {
  for (const part of location.hash.slice(1).split("&")) {
    const [key, ...rest] = part.split("=");
    let value = rest.join("=");
    try {
      value = decodeURIComponent(value);
    } catch {
      continue;
    }
    if (key === "at" && Object.hasOwn(lesson, value)) goToChapter(value);
    else if (Object.hasOwn(lesson, key) && lesson[key].check && judge(key, value)) fillIn(key, value);
  }
}

function fillIn(name, value) {
  const form = document.querySelector(`form[data-chapter="${name}"]`);
  if (lesson[name].check.options) form.querySelector(`input[value="${Number(value)}"]`).checked = true;
  else form.querySelector("input").value = value;
  answer(name, value);
}

function goToChapter(name, focus = false) {
  const section = byId(name);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  section.scrollIntoView({ behavior: focus && !calm ? "smooth" : "auto" });
  if (focus) section.focus({ preventScroll: true });
}

function startProgress() {
  for (const form of document.querySelectorAll("form.check")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer(form.dataset.chapter, new FormData(form).get(form.dataset.chapter) ?? "");
      writeAddress();
    });
  }
  for (const link of document.querySelectorAll("a[data-chapter]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      here = link.dataset.chapter;
      goToChapter(here, true);
      writeAddress();
    });
  }
  readAddress();
  const links = [...document.querySelectorAll(".chapters a")];
  const seen = new IntersectionObserver(
    (entries) => {
      const entry = entries.find(({ isIntersecting }) => isIntersecting);
      if (!entry) return;
      for (const link of links) {
        if (link.dataset.chapter === entry.target.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
      if (here === entry.target.id) return;
      here = entry.target.id;
      writeAddress();
    },
    { rootMargin: "-40% 0px -55% 0px" },
  );
  document.querySelectorAll("section.chapter").forEach((section) => seen.observe(section));
}

function startCopying() {
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const { chapter, cell } = button.dataset;
      const text = chapter ? lesson[chapter].copied[cell] : button.closest(".cell").querySelector("code").textContent;
      say(button, (await copy(text)) ? "Copied ✓" : "Select and copy it by hand");
      setTimeout(() => say(button, "Copy"), 2500);
    });
  }
}

/** Where a browser lends no clipboard, the old way still works. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
