"use strict";
(() => {
  const tip = document.getElementById("tip");

  function show(mark) {
    hide();
    mark.classList.add("on");
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    place(mark);
  }

  function place(mark) {
    const at = mark.getBoundingClientRect();
    const left = Math.min(at.right + 8, window.innerWidth - tip.offsetWidth - 8);
    const below = at.bottom + 6;
    const fits = below + tip.offsetHeight < window.innerHeight;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = (fits ? below : Math.max(8, at.top - tip.offsetHeight - 6)) + "px";
  }

  function hide() {
    tip.hidden = true;
    for (const mark of document.querySelectorAll(".mark.on")) mark.classList.remove("on");
  }

  for (const mark of document.querySelectorAll("[data-tip]")) {
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("pointerleave", hide);
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("blur", hide);
  }
  addEventListener("scroll", () => {
    const shown = document.querySelector(".on[data-tip]");
    if (shown) place(shown);
  }, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // A plot is one stop of the Tab key; the arrow keys go from mark to mark.
  for (const plot of document.querySelectorAll("svg.plot")) {
    const marks = [...plot.querySelectorAll(".mark[tabindex]")].sort((a, b) => a.dataset.x - b.dataset.x);
    if (marks.length) marks[0].setAttribute("tabindex", "0");
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const here = marks.indexOf(document.activeElement);
      if (!step || here < 0) return;
      event.preventDefault();
      const next = marks[(here + step + marks.length) % marks.length];
      marks[here].setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  }

  for (const button of document.querySelectorAll("button.copies")) {
    const source = button.parentElement.querySelector("pre");
    const spoken = button.textContent;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        // Without leave to use the clipboard: marked, for the keyboard to copy.
        getSelection().selectAllChildren(source);
        button.textContent = "Marked";
      }
      setTimeout(() => { button.textContent = spoken; }, 2000);
    });
  }
})();
