// Begin: every chapter draws its pictures, then the address is read.

function begin() {
  document.documentElement.classList.add("drawn");
  for (const [name, values] of Object.entries(lesson)) if (values.check) pictures[name](values);
  watchGround();
  startCopying();
  startProgress();
  document.documentElement.dataset.ready = "true";
}

begin();
