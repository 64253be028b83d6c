// Rows of videos: a page of them at a time, all videos of a row at the same moment, each to be enlarged.
const $ = id => document.getElementById(id);
const PAGE = 12;   // rows at a time: a set may have thousands, a browser can hold few players
const APART = .05;  // seconds: further apart than this and than a frame, videos are set anew instead of hurried
const quiet = matchMedia("(prefers-reduced-motion: reduce)").matches;
let playing = !quiet, larger = null;

const seek = (video, time) => new Promise(done => {
  video.addEventListener("seeked", done, { once: true });
  video.addEventListener("error", done, { once: true });
  video.currentTime = Math.min(time, Math.max(0, video.duration - .001));
});

class Row {
  // films: [{name, address}]; an address may be missing
  constructor(title, films, fps) {
    Object.assign(this, { title, films, fps: fps || 10, range: null, on: playing, seen: false, begun: false, jumps: 0, busy: false });
    this.captions = films.map(film => make("figcaption", { textContent: film.name }));
    this.videos = films.map(({ address }, i) => {
      const video = make("video", { muted: true, playsInline: true, preload: "metadata" });
      if (address) video.src = address;
      video.onloadedmetadata = () => {
        video.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
        video.classList.toggle("small", video.videoWidth < video.clientWidth);
      };
      video.onerror = () => {
        if (!video.hasAttribute("src")) return;  // it was let go
        video.broken = true;
        this.captions[i].textContent += "\nthis video cannot be shown";
      };
      return video;
    });
    const figures = this.videos.map((video, i) => {
      const film = make("button", { type: "button", className: "film", onclick: () => enlarge(this, i) }, video);
      film.setAttribute("aria-label", `enlarge ${films[i].name}: ${title}`);
      film.disabled = !films[i].address;
      return make("figure", {}, film, this.captions[i]);
    });
    this.button = make("button", { type: "button", onclick: () => this.turn(!this.on) });
    this.slider = make("input", { type: "range", min: 0, max: 0, step: 1 / this.fps, value: 0, oninput: () => this.scrub(+this.slider.value) });
    this.slider.setAttribute("aria-label", `time of all videos: ${title}`);
    this.clock = make("output");
    this.element = make("article", { className: "row", tabIndex: -1 }, make("h3", { textContent: title }),
      make("div", { className: "films" }, ...figures), make("div", { className: "player" }, this.button, this.slider, this.clock));
    this.turn(this.on);
  }

  get shown() { return this.videos.filter(video => video.src && !video.broken); }
  get lead() { return this.shown.reduce((best, video) => video.duration > best.duration ? video : best); }  // the longest
  get running() { return this.on && this.seen && !larger; }

  turn(on) {
    this.on = on;
    this.button.textContent = on ? "pause" : "play";
    this.button.setAttribute("aria-label", `${on ? "pause" : "play"} ${this.title}`);
    if (this.begun) this.jump(on && this.lead.ended ? 0 : this.lead.currentTime);
  }

  scrub(time) {
    if (this.on) this.turn(false);
    this.draw(time);  // said with the key that was pressed, not when the last video has arrived
    this.jump(time);
  }

  // all to one moment; they go on together once all are there
  async jump(time) {
    const mine = ++this.jumps, videos = this.shown;
    if (!videos.length) return;
    this.busy = true;
    videos.forEach(video => { video.pause(); video.playbackRate = 1; });
    await Promise.all(videos.map(video => seek(video, time)));
    if (mine !== this.jumps) return;
    this.busy = false;
    this.draw(this.lead.currentTime);
    if (this.running) await Promise.all(videos.filter(video => video.duration > time + .01).map(video => video.play().catch(error => {
      if (error.name === "NotAllowedError") this.turn(false);  // this browser wants a click first
    })));
  }

  // called before every picture: the longest video leads, the others are hurried or held a little, and all begin anew together
  keep() {
    if (!this.shown.length || this.busy) return;
    if (!this.begun) {
      if (this.shown.some(video => video.readyState < 2)) return;
      this.begun = true;
      this.slider.max = this.lead.duration;
      return this.jump(this.range ? this.range[0] : 0);
    }
    const { lead } = this, now = lead.currentTime, [from, to] = this.range ?? [0, lead.duration];
    this.draw(now);
    if (!this.running) { if (!lead.paused) this.shown.forEach(video => video.pause()); return; }
    if (lead.ended || now >= to - .002 || now < from - .05) return this.jump(from);
    if (lead.paused) return this.jump(now);
    for (const video of this.shown) if (video !== lead && now < video.duration - .05) {
      const late = now - video.currentTime;
      if (Math.abs(late) > Math.max(APART, 1 / this.fps)) return this.jump(now);
      video.playbackRate = Math.abs(late) < .008 ? 1 : 1 + Math.max(-.4, Math.min(.4, 5 * late));
    }
  }

  draw(now) {
    if (document.activeElement !== this.slider || this.on) this.slider.value = now;
    if (!this.on) this.slider.setAttribute("aria-valuetext", `${now.toFixed(2)} seconds`);  // else it would never be silent
    this.clock.textContent = `${now.toFixed(1)} / ${this.lead.duration.toFixed(1)} s`;
    this.moved?.(now);
  }

  drop() { this.jumps++; this.videos.forEach(video => { video.pause(); video.removeAttribute("src"); video.load(); }); }
}

// -- one video by itself

function enlarge(row, i) {
  const video = $("large").querySelector("video"), time = row.shown.length ? row.lead.currentTime : 0;
  larger = { row, i };
  $("shown").textContent = `${row.films[i].name}: ${row.title}`;
  video.classList.toggle("small", row.videos[i].classList.contains("small"));
  video.src = row.films[i].address;
  video.style.aspectRatio = row.videos[i].style.aspectRatio;
  video.currentTime = time;
  if (row.on) video.play().catch(() => {});
  if (!$("large").open) $("large").showModal();
}

const other = step => {
  const { row, i } = larger, places = row.films.flatMap((film, k) => film.address ? [k] : []);
  enlarge(row, places.at((places.indexOf(i) + step) % places.length));
};

// -- a page of rows

class Gallery {
  // build(item) makes the Row of an item, which has a title and an id; order(items) sorts them
  constructor(items, build, order) {
    Object.assign(this, { items, build, order, chosen: items, first: 0, rows: [] });
    this.watch = new IntersectionObserver(seen => seen.forEach(({ target, isIntersecting }) => {
      const row = this.rows.find(row => row.element === target);
      if (!row) return;
      row.seen = isIntersecting;
      if (row.seen) row.videos.forEach(video => { video.preload = "auto"; });
    }));
    $("filter").oninput = () => this.choose();
    $("back").onclick = () => this.show(this.first - PAGE);
    $("on").onclick = () => this.show(this.first + PAGE);
    $("jump").onchange = () => this.jump($("jump").value.trim());
    $("play").onclick = () => { playing = !playing; this.rows.forEach(row => row.turn(playing)); this.name_play(); };
    $("left").onclick = () => other(-1);
    $("right").onclick = () => other(1);
    $("large").onkeydown = event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step && event.target.tagName !== "VIDEO") { event.preventDefault(); other(step); }
    };
    $("large").onclose = () => { larger = null; const video = $("large").querySelector("video"); video.removeAttribute("src"); video.load(); };
    this.name_play();
    this.choose();
    const step = () => { this.rows.forEach(row => row.seen && row.keep()); requestAnimationFrame(step); };
    requestAnimationFrame(step);
  }

  name_play() { $("play").textContent = playing ? "pause all" : "play all"; }

  choose(first = 0) {
    const text = $("filter").value.toLowerCase();
    this.chosen = this.order(this.items.filter(({ title }) => title.toLowerCase().includes(text)));
    this.show(first);
  }

  show(first) {
    this.first = Math.max(0, Math.min(first, Math.floor((this.chosen.length - 1) / PAGE) * PAGE));
    this.watch.disconnect();
    this.rows.forEach(row => row.drop());
    const items = this.chosen.slice(this.first, this.first + PAGE), total = this.chosen.length.toLocaleString("en");
    this.rows = items.map(this.build);
    $("rows").replaceChildren(...this.rows.map(row => row.element));
    this.rows.forEach(row => this.watch.observe(row.element));
    const of = this.chosen.length < this.items.length ? ` (${this.items.length.toLocaleString("en")} in all)` : "";
    $("count").textContent = total === "0" ? `none${of}` : `${this.first + 1} to ${this.first + items.length} of ${total}${of}`;
    $("back").disabled = !this.first;
    $("on").disabled = this.first + PAGE >= this.chosen.length;
  }

  // to an item's id, or its number in the order that is shown
  jump(wanted) {
    if (!wanted) return;
    let place = this.chosen.findIndex(({ id }) => String(id) === wanted);
    if (place < 0 && /^\d+$/.test(wanted)) place = +wanted - 1;
    if (!(place >= 0 && place < this.chosen.length)) { $("count").textContent = `there is no ${wanted} among ${this.chosen.length}`; return; }
    this.show(place - place % PAGE);
    this.rows[place - this.first].element.focus();
    this.rows[place - this.first].element.scrollIntoView({ block: "nearest" });
  }
}
