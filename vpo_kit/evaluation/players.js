const { metrics, models } = JSON.parse(document.getElementById("numbers").textContent);
const at = id => document.getElementById(id);
const run = i => models[i].runs[at("seed") ? at("seed").value : Object.keys(models[i].runs)[0]];
const cards = [...document.querySelectorAll(".clip")].map(element => ({
  element, place: +element.dataset.place, file: element.dataset.file, seen: false,
  videos: [...element.querySelectorAll("video")], captions: [...element.querySelectorAll("figcaption")],
}));
let playing = true;
const apply = card => card.videos.forEach(v => v.hasAttribute("src") && playing && card.seen ? v.play().catch(() => {}) : v.pause());

// the first video of a card leads, the others follow it, so that all show the same moment
function step() {
  for (const card of cards) if (card.seen) {
    const [lead, ...rest] = card.videos;
    if (!lead.seeking) for (const v of rest)
      if (!v.seeking && v.readyState > 0 && Math.abs(v.currentTime - lead.currentTime) > 0.08) v.currentTime = lead.currentTime;
  }
  requestAnimationFrame(step);
}
requestAnimationFrame(step);
cards.forEach(card => card.videos.forEach(v => v.onloadedmetadata = () => {
  v.style.aspectRatio = v.videoWidth + " / " + v.videoHeight;
  v.classList.toggle("small", v.videoWidth < v.clientWidth);
}));
const watch = new IntersectionObserver(entries => entries.forEach(e => {
  const card = cards.find(c => c.element === e.target);
  card.seen = e.isIntersecting;
  apply(card);
}));
cards.forEach(card => watch.observe(card.element));

const value = (i, card, metric) => run(i) && run(i).values[metric] ? run(i).values[metric][card.place] : null;
const shown = number => (+number.toPrecision(3)).toString();
function show() {
  const name = at("metric").value;
  for (const card of cards) card.captions.forEach((caption, i) => {
    let line = caption.dataset.name.replace(/[=_.:]/g, "$&\u200b");  // where a long name may be broken
    if (!run(i)) line += ": no run";
    else for (const metric of new Set([name, "motion"])) {
      const number = value(i, card, metric);
      if (number !== null) line += (metric === name ? " " : "\nmotion ") + shown(number);
    }
    caption.textContent = line;
  });
  if (!at("order")) return;
  const model = +at("model").value;
  const change = card => {
    const [before, after] = [value(models[model].base, card, name), value(model, card, name)];
    return before === null || after === null ? 0 : after - before;
  };
  const weight = { size: c => -Math.abs(change(c)), rise: c => -change(c), fall: change, place: () => 0 }[at("order").value];
  cards.sort((a, b) => weight(a) - weight(b) || a.place - b.place);
  document.querySelector(".clips").append(...cards.map(card => card.element));
}
for (const id of ["metric", "model", "order"]) if (at(id)) at(id).onchange = show;
if (at("seed")) at("seed").onchange = () => {
  for (const card of cards) {
    card.videos.forEach((v, i) => {
      const source = run(i) && run(i).folder.split("/").map(encodeURIComponent).join("/") + "/" + card.file;
      if (!source) { v.removeAttribute("src"); v.load(); } else if (v.getAttribute("src") !== source) v.src = source;
    });
    apply(card);
  }
  show();
};
show();
at("play").onclick = e => {
  playing = !playing;
  e.target.textContent = playing ? "pause" : "play";
  cards.forEach(apply);
};
at("restart").onclick = () => cards.flatMap(card => card.videos).forEach(v => v.currentTime = 0);
at("filter").oninput = e => {
  const wanted = e.target.value.toLowerCase();
  cards.forEach(card => card.element.hidden = !card.element.dataset.prompt.includes(wanted));
  at("count").textContent = cards.filter(card => !card.element.hidden).length + " shown";
};
