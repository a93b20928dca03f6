"use strict";

// What the pages cannot do by themselves: times in the viewer's zone, charts, details at the side, copying.

const shownIn = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "medium" });

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.textContent = shownIn.format(at);
      time.dataset.local = "";
    }
  }
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function charts(root) {
  if (typeof Chart === "undefined") {
    return;
  }
  Chart.defaults.color = colour("--soft");
  Chart.defaults.borderColor = colour("--line");
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  const tones = ["--chart-1", "--chart-2", "--chart-3", "--chart-4", "--chart-5"].map(colour);
  for (const canvas of root.querySelectorAll("canvas[data-chart]:not([data-drawn])")) {
    const config = JSON.parse(canvas.dataset.chart);
    config.data.datasets.forEach((set, index) => {
      const tone = tones[index % tones.length];
      set.borderColor = set.borderColor || tone;
      set.backgroundColor = set.backgroundColor || (config.type === "line" ? "transparent" : tone);
      set.pointRadius = set.pointRadius ?? 0;
      set.borderWidth = set.borderWidth ?? (config.type === "line" ? 2 : 0);
    });
    config.options = { responsive: true, maintainAspectRatio: false, animation: false, interaction: { mode: "index", intersect: false }, ...config.options };
    new Chart(canvas, config);
    canvas.dataset.drawn = "";
  }
}

function dress(root) {
  localTimes(root);
  charts(root);
}

const flyover = document.getElementById("flyover");
let flownFrom = null;

function closeFlyover() {
  if (flyover && !flyover.hidden) {
    flyover.hidden = true;
    flyover.replaceChildren();
    flownFrom?.focus();
  }
}

function openFlyover(button) {
  const close = document.createElement("button");
  close.className = "quiet close";
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", closeFlyover);
  const found = document.getElementById(button.dataset.fly);
  flyover.replaceChildren(close, found.content.cloneNode(true));
  flyover.hidden = false;
  flownFrom = button;
  dress(flyover);
  close.focus();
}

document.addEventListener("click", (event) => {
  const fly = event.target.closest("[data-fly]");
  if (fly && flyover) {
    openFlyover(fly);
    return;
  }
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    const field = document.getElementById(copy.dataset.copy);
    navigator.clipboard?.writeText(field.value ?? field.textContent).then(() => {
      copy.textContent = "Copied";
    });
    field.select?.();
    return;
  }
  const add = event.target.closest("[data-add]");
  if (add) {
    const shape = document.getElementById(add.dataset.add);
    shape.before(shape.content.cloneNode(true));
    add.closest("form")?.dispatchEvent(new Event("change", { bubbles: true }));
    return;
  }
  const drop = event.target.closest("[data-drop]");
  if (drop) {
    const form = drop.closest("form");
    drop.closest(drop.dataset.drop).remove();
    form?.dispatchEvent(new Event("change", { bubbles: true }));
  }
});

document.addEventListener("submit", (event) => {
  const asked = event.target.dataset.confirm;
  if (asked && !window.confirm(asked)) {
    event.preventDefault();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    closeFlyover();
  }
});

document.addEventListener("htmx:afterSwap", (event) => {
  dress(event.target);
});

document.addEventListener("htmx:sseMessage", () => {
  const rows = document.getElementById("live");
  document.getElementById("no-events")?.remove();
  dress(rows);
  while (rows.rows.length > Number(rows.dataset.most)) {
    rows.deleteRow(-1);
  }
});

dress(document);
