// Curves tell their values: under the pointer, or with the arrow keys.
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg"), told = chart.querySelector("output"), here = chart.querySelector(".here");
  const points = JSON.parse(svg.dataset.points);  // [x, y, what it says], places in the picture's own units
  let at = -1;
  const tell = i => {
    at = Math.max(0, Math.min(points.length - 1, i));
    const [x, y, text] = points[at];
    told.textContent = text;
    here.setAttribute("cx", x); here.setAttribute("cy", y); here.removeAttribute("visibility");
    svg.setAttribute("aria-valuenow", at); svg.setAttribute("aria-valuetext", text);
  };
  svg.onpointermove = event => {
    const { left, top, width } = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / width;
    const [px, py] = [(event.clientX - left) * scale, (event.clientY - top) * scale];
    const far = ([x, y]) => Math.abs(x - px) + .2 * Math.abs(y - py);  // mostly the nearest in x
    tell(points.reduce((best, point, i) => far(point) < far(points[best]) ? i : best, 0));
  };
  svg.onfocus = () => tell(at < 0 ? 0 : at);
  svg.onkeydown = event => {
    const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: points.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tell(to);
  };
}
