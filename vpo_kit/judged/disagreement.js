// The pairs on which one judge and people disagree, in one set and dimension at a time.
const { sections } = JSON.parse($("data").textContent);
const items = sections.flatMap(({ rows }, section) => rows.map((row, place) => ({ ...row, section, place })));

function build({ title, films, chosen }) {
  const row = new Row(title, films);
  row.captions[chosen].classList.add("chosen");
  return row;
}

const order = found => found.filter(({ section }) => section === +$("section").value).sort((a, b) => a.place - b.place);
const gallery = new Gallery(items, build, order);
$("section").onchange = () => gallery.choose();
