// The edit room: sliders, the picture that follows them, key frames on a time line, and the edited take.
import { Lanes } from "./lanes.js";
import { Playback } from "./playback.js";
import { Strengths, commands, round, signed } from "./strengths.js";

const REST = 160; // ms without a move until the whole size is drawn
const $ = (id) => document.getElementById(id);

// Draws the newest wish alone: one request is under way, and one may wait.
class Pictures {
  constructor(url, show, fail) {
    Object.assign(this, { url, show, fail, page: crypto.randomUUID(), number: 0, busy: false, next: null });
  }

  want(wish) {
    this.next = { ...wish, asked: performance.now() };
    if (!this.busy) this.work();
  }

  async work() {
    this.busy = true;
    while (this.next) {
      const wish = this.next;
      this.next = null;
      try {
        const drawn = await draw(this.url, { ...wish, page: this.page, number: ++this.number });
        if (drawn) await this.show(drawn, wish);
      } catch (error) { this.fail(error, wish); }
    }
    this.busy = false;
  }
}

async function draw(url, { edits, frame, draft, page, number }) {
  const answer = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ edits, frame, draft, page, number }) })
    .catch(() => { throw new Error("The studio does not answer: start it again in the terminal. The edits stay here."); });
  if (answer.status === 204) return null;
  if (!answer.ok) {
    const text = await answer.text();
    let told = text;
    try { told = JSON.parse(text).error; } catch { /* plain text */ }
    throw new Error(told);
  }
  return { ...JSON.parse(answer.headers.get("X-Drawn")), blob: await answer.blob() };
}

async function put(image, blob) {
  const address = URL.createObjectURL(blob), old = image.src;
  const ready = new Image();
  ready.src = address;
  await ready.decode();
  image.src = address;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

export function start({ post, say, follow }) {
  const place = document.querySelector("[data-editor]");
  if (!place) return;
  const url = place.dataset.editor;
  $("other")?.addEventListener("change", (event) => location.assign(url.replace(/[^/]+\/edit$/, `${event.target.value}/edit`)));
  const open = async () => {
    place.dataset.state = "loading";
    $("loading").hidden = false;
    $("failed").hidden = true;
    try {
      new Editor(place, url, await post(`${url}/open`), { post, say, follow });
    } catch (error) {
      place.dataset.state = "failed";
      $("loading").hidden = true;
      $("failed").hidden = false;
      $("failed").querySelector("[role=alert]").textContent = error.message;
      $("waiting").textContent = "";
    }
  };
  $("again").addEventListener("click", open);
  open();
}

class Editor {
  constructor(place, url, facts, page) {
    Object.assign(this, { place, url, page, facts, most: Number(place.dataset.strongest), rows: new Map(), rest: 0, dropped: null, kept: `edit:${location.pathname}` });
    this.strengths = new Strengths(facts.sliders.map((slider) => slider.name), facts.times);
    this.strengths.restore(localStorage.getItem(this.kept));
    this.pictures = new Pictures(`${url}/picture`, (drawn, wish) => this.show(drawn, wish), (error) => this.fail(error));
    this.originals = new Pictures(`${url}/picture`, (drawn, wish) => this.original(drawn, wish), (error) => this.fail(error));
    $("waiting").hidden = true;
    $("none").hidden = facts.sliders.length > 0;
    $("save").hidden = $("hint").hidden = facts.sliders.length === 0;
    $("frame").disabled = $("play").disabled = false;
    this.lanes = new Lanes(this);
    this.playback = new Playback(this);
    for (const slider of facts.sliders) this.row(slider);
    this.bind();
    this.update();
    this.want(false);
  }

  get frame() { return Number($("frame").value); }
  get time() { return this.facts.times[this.frame]; }
  get edits() { return this.strengths.edits($("edge").value); }

  row({ name, title }) {
    const row = $("slider").content.cloneNode(true).firstElementChild;
    const [range, number, key, back] = [row.querySelector("[type=range]"), row.querySelector("[type=number]"), row.querySelector(".key"), row.querySelector(".back")];
    row.dataset.name = name;
    row.querySelector("label").textContent = title;
    row.querySelector("label").htmlFor = range.id = `slider-${name}`;
    row.setAttribute("aria-label", title);
    for (const field of [range, number]) Object.assign(field, { min: -this.most, max: this.most });
    number.setAttribute("aria-label", `${title}, strength`);
    back.setAttribute("aria-label", back.title = `Reset ${title}`);
    const set = (value, exact) => { this.strengths.set(name, this.time, value); this.changed(true, exact); };
    range.addEventListener("input", () => set(round(range.valueAsNumber)));
    range.addEventListener("change", () => this.settle());
    range.addEventListener("dblclick", () => { this.strengths.clear(name); this.changed(); });
    number.addEventListener("change", () => {
      const given = number.valueAsNumber, value = Math.min(this.most, Math.max(-this.most, Number.isFinite(given) ? given : 0));
      $("trouble").textContent = given === value ? "" : Number.isFinite(given) ? `${title}: strengths go from ${-this.most} to ${this.most}, so ${given} became ${value}.` : `${title}: expected a number, so it is 0.`;
      set(value);
    });
    key.addEventListener("click", () => { this.strengths.toggle(name, this.time); this.changed(); });
    back.addEventListener("click", () => { this.strengths.clear(name); this.changed(); range.focus(); });
    $("sliders").append(row);
    this.rows.set(name, { row, range, number, key, back, title });
  }

  bind() {
    $("frame").addEventListener("input", () => { this.playback.stop(); this.update(); this.want(true); });
    $("frame").addEventListener("change", () => this.settle());
    $("edge").addEventListener("change", () => this.changed());
    $("name").addEventListener("input", () => this.update());
    $("reset").addEventListener("click", () => this.reset());
    const button = $("before");
    const hold = (event) => { event.preventDefault(); this.compare(true); };
    const release = () => this.compare(false);
    button.addEventListener("pointerdown", (event) => { button.setPointerCapture(event.pointerId); button.focus(); hold(event); });
    for (const name of ["pointerup", "pointercancel", "blur", "contextmenu"]) button.addEventListener(name, release);
    button.addEventListener("keydown", (event) => { if ((event.key === " " || event.key === "Enter") && !event.repeat) hold(event); });
    button.addEventListener("keyup", (event) => { if (event.key === " " || event.key === "Enter") { event.preventDefault(); release(); } });
    for (const name of ["pointerenter", "focus"]) button.addEventListener(name, () => this.fetchOriginal());
    $("save").addEventListener("submit", (event) => { event.preventDefault(); this.save(); });
  }

  // Ask for the picture of this moment; a draft is followed by the whole size when the slider rests.
  want(draft) {
    clearTimeout(this.rest);
    if (this.playback.on) return; // the next picture shows it
    this.rested = false;
    this.pictures.want({ edits: this.edits, frame: this.frame, draft });
    if (draft) this.rest = setTimeout(() => this.settle(), REST);
  }

  // The slider rests: what is under way may be the whole size already.
  settle() {
    clearTimeout(this.rest);
    if (this.playback.on) return;
    this.rested = this.pictures.busy;
    if (!this.rested) this.whole();
  }

  whole() {
    const shown = this.shown;
    const same = shown?.full && shown.frame === this.frame && shown.edits === JSON.stringify(this.edits);
    if (!same) this.want(false);
  }

  async show(drawn, wish) {
    const image = $("shown");
    this.latest = drawn.blob;
    if (!this.comparing) await put(image, drawn.blob);
    this.shown = { frame: wish.frame, edits: JSON.stringify(wish.edits), full: drawn.full };
    Object.assign(image.dataset, { frame: wish.frame, edits: this.shown.edits, full: drawn.full, size: drawn.size });
    image.hidden = false;
    $("veil").hidden = true;
    this.place.dataset.state = "ready";
    $("trouble").dataset.kind === "draw" && ($("trouble").textContent = "");
    performance.measure("edit", { start: wish.asked, end: performance.now(), detail: { full: drawn.full, drawing: drawn.seconds } });
    this.describe();
    this.playback.shown(drawn.size, wish.frame);
    if (this.rested && !this.pictures.next) this.whole();
  }

  fail(error) {
    this.playback.stop();
    $("loading").hidden = true;
    $("trouble").textContent = error.message;
    $("trouble").dataset.kind = "draw";
  }

  describe() {
    const words = this.edits.map((edit) => `${this.rows.get(edit.name).title} ${signed(round(this.strengths.at(edit.name, this.time)))}`);
    $("shown").alt = `The avatar at ${this.time.toFixed(2)} s, ${words.length ? words.join(", ") : "unedited"}`;
  }

  changed(moving = false) {
    this.dropped = null;
    localStorage.setItem(this.kept, this.strengths.stored());
    this.update();
    this.want(moving);
  }

  // Bring all fields up to date with the strengths at this moment.
  update() {
    const { time, frame, facts } = this, edits = this.edits;
    $("moment").textContent = `${time.toFixed(2)} s \u00b7 ${frame + 1} of ${facts.times.length}`;
    $("frame").setAttribute("aria-valuetext", `${time.toFixed(2)} seconds, frame ${frame + 1} of ${facts.times.length}`);
    for (const [name, { row, range, number, key, back, title }] of this.rows) {
      const value = round(this.strengths.at(name, time)), here = Boolean(this.strengths.key(name, time)), keys = this.strengths.all.get(name).keys;
      range.value = value;
      if (document.activeElement !== number || Number(number.value) !== value) number.value = value;
      range.setAttribute("aria-valuetext", `${signed(value)}${keys ? (here ? ", key frame" : ", between key frames") : ""}`);
      range.style.setProperty("--from", `${50 + 50 * Math.min(0, value / this.most)}%`);
      range.style.setProperty("--to", `${50 + 50 * Math.max(0, value / this.most)}%`);
      key.setAttribute("aria-pressed", here);
      key.setAttribute("aria-label", key.title = `${here ? "Remove the key frame" : "Key frame"} of ${title} at ${time.toFixed(2)} s`);
      row.classList.toggle("keyed", Boolean(keys));
      back.disabled = !this.strengths.changed(name);
    }
    const any = [...this.rows.keys()].some((name) => this.strengths.changed(name));
    $("reset").disabled = !any && !this.dropped;
    $("reset").textContent = this.dropped ? "Bring the edits back" : "Reset all";
    $("before").disabled = edits.length === 0;
    $("keep").disabled = edits.length === 0;
    $("why").textContent = edits.length ? `${edits.length} edit${edits.length > 1 ? "s" : ""}. The take itself stays.` : "Nothing is changed yet.";
    const given = $("name").value.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-") || `${this.place.dataset.take}-edited`;
    $("terminal").textContent = edits.length ? commands(this.place.dataset.take, given, edits) : "Move a slider first.";
    this.lanes.show();
  }

  go(frame) { this.playback.stop(); $("frame").value = frame; this.update(); this.want(false); }

  // Draw a moment of the take that plays, as small as a draft.
  play(frame) {
    $("frame").value = frame;
    this.update();
    this.pictures.want({ edits: this.edits, frame, draft: true });
  }


  reset() {
    const before = this.dropped ? null : this.strengths.stored();
    if (this.dropped) this.strengths.restore(this.dropped);
    else for (const name of this.rows.keys()) this.strengths.clear(name);
    this.changed();
    this.dropped = before;
    this.update();
  }

  fetchOriginal() {
    if (this.before?.frame !== this.frame) this.originals.want({ edits: [], frame: this.frame, draft: false });
  }

  async original(drawn, wish) {
    this.before = { frame: wish.frame, blob: drawn.blob };
    if (this.comparing) await this.swap(drawn.blob);
  }

  async compare(on) {
    if (on === Boolean(this.comparing) || (on && $("before").disabled)) return;
    if (on) this.playback.stop();
    this.comparing = on;
    $("before").setAttribute("aria-pressed", on);
    if (on && this.before?.frame !== this.frame) this.fetchOriginal();
    else await this.swap(on ? this.before.blob : this.latest);
  }

  async swap(blob) {
    if (blob) await put($("shown"), blob);
    $("unedited").hidden = !this.comparing;
    $("shown").dataset.unedited = this.comparing;
    if (this.comparing) $("shown").alt = `The avatar at ${this.time.toFixed(2)} s, unedited`;
    else this.describe();
  }

  async save() {
    $("refused").textContent = "";
    $("keep").disabled = true;
    try {
      const told = await this.page.post(`${this.url}/save`, { edits: this.edits, name: $("name").value });
      await this.page.follow(told);
      $("name").value = "";
    } catch (error) { $("refused").textContent = error.message; }
    this.update();
  }
}
