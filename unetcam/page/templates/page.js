"use strict";
(() => {
  const folds = [...document.querySelectorAll("#classes > details")];

  // A link into a folded section opens it.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  const button = document.querySelector("[data-fold]");
  const label = () => {
    button.textContent = folds.every((one) => one.open) ? "Fold all" : "Open all";
  };
  button.hidden = folds.length < 2;
  button.addEventListener("click", () => {
    const open = !folds.every((one) => one.open);
    folds.forEach((one) => { one.open = open; });
    label();
  });
  folds.forEach((one) => one.addEventListener("toggle", label));
  label();

  // On paper nothing can be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));

  const dialog = document.getElementById("enlarged");
  document.querySelectorAll(".zoom").forEach((zoom) => zoom.addEventListener("click", () => {
    const image = zoom.querySelector("img");
    const large = dialog.querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    dialog.querySelector("p").textContent = image.alt;
    dialog.showModal();
  }));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // The contents mark where the reader is.
  const links = new Map([...document.querySelectorAll(".contents a")].map(
    (link) => [link.getAttribute("href").slice(1), link]));
  const marked = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  const here = () => {
    const line = innerHeight / 3;
    const passed = marked.filter((one) => one.getBoundingClientRect().top <= line);
    const current = passed.length ? passed[passed.length - 1].id : marked[0].id;
    links.forEach((link, id) => {
      if (id === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; here(); });
  }, { passive: true });
  here();
})();
