// Pairs, with their segments under the videos: each tells its scores, and a click repeats it.
const { pairs } = JSON.parse($("data").textContent);

function build(pair) {
  const row = new Row(pair.title, ["first", "second"].map((name, i) => ({ name, address: pair.videos[i] })), pair.fps);
  if (pair.better) row.captions[pair.better === "first" ? 0 : 1].classList.add("chosen");
  const told = make("output", { className: "note", textContent: pair.note }), head = make("span", { className: "head" });
  const buttons = pair.segments.map(segment => {
    const button = make("button", { type: "button", className: segment.kind, textContent: segment.kind === "none" ? "" : segment.kind });
    button.style.flexGrow = segment.share;
    button.setAttribute("aria-label", segment.note);
    button.setAttribute("aria-pressed", "false");
    button.onmouseenter = button.onfocus = () => { told.textContent = segment.note; };
    button.onmouseleave = button.onblur = () => { told.textContent = pair.note; };
    button.onclick = () => {
      const pressed = button.getAttribute("aria-pressed") === "true";
      buttons.forEach(other => other.setAttribute("aria-pressed", other === button && !pressed));
      // the last tenth of a frame belongs to the next segment in some players
      row.range = pressed ? null : [segment.start, segment.end - .1 / pair.fps];
      if (row.range && row.begun) row.jump(segment.start);
    };
    return button;
  });
  const line = make("div", { className: "line" }, ...buttons, head);
  line.setAttribute("role", "group");
  line.setAttribute("aria-label", "segments");
  row.moved = now => { head.style.left = `${Math.min(100, 100 * now / pair.seconds)}%`; };
  row.element.append(line, told, make("div", { className: "facts", textContent: pair.about }));
  return row;
}

function order(found) {
  const [key, sign] = $("order").value.split(" ");
  return found.sort((a, b) => sign * (a[key] - b[key]) || a.place - b.place);
}

const gallery = new Gallery(pairs.map((pair, place) => ({ ...pair, place })), build, order);
$("order").onchange = () => gallery.choose();
