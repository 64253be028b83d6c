// The videos of all models, prompt by prompt, in the order of what a metric changed.
const { models, clips, fps } = JSON.parse($("data").textContent);
const run = i => models[i].runs[$("seed") ? $("seed").value : Object.keys(models[i].runs)[0]];
const value = (i, { place }, metric) => run(i)?.values[metric]?.[place] ?? null;
const short = number => (+number.toPrecision(3)).toString();

function caption(name, i, clip) {
  const line = name.replace(/[=_.:]/g, "$&\u200b");  // where a long name may be broken
  if (!run(i)) return `${line}: no run`;
  const metric = $("metric").value, [number, motion] = [metric, "motion"].map(key => value(i, clip, key));
  return line + (number === null ? "" : ` ${short(number)}`) + (motion === null || metric === "motion" ? "" : `\nmotion ${short(motion)}`);
}

function build(clip) {
  const films = models.map(({ name }, i) => ({
    name, address: run(i) && [...run(i).folder.split("/"), clip.file].map(encodeURIComponent).join("/"),
  }));
  const row = new Row(clip.title, films, fps);
  row.captions.forEach((line, i) => { line.textContent = caption(models[i].name, i, clip); });
  return row;
}

function change(clip) {
  const model = +$("model").value, metric = $("metric").value;
  const [before, after] = [value(models[model].base, clip, metric), value(model, clip, metric)];
  return before === null || after === null ? 0 : after - before;
}

const WEIGHTS = { size: c => -Math.abs(change(c)), rise: c => -change(c), fall: change, place: () => 0 };
function order(found) {
  const weight = WEIGHTS[$("order") && $("model").value ? $("order").value : "place"];
  return found.sort((a, b) => weight(a) - weight(b) || a.place - b.place);
}

$("rows").style.setProperty("--wide", `${13 * models.length}rem`);
const gallery = new Gallery(clips.map(([title, file], place) => ({ title, file, place, id: file.replace(/\.\w+$/, "") })), build, order);
for (const id of ["metric", "model", "order", "seed"]) if ($(id)) $(id).onchange = () => gallery.choose(id === "seed" ? gallery.first : 0);
