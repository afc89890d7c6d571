// The lanes of key frames below the sliders: one for each edit over time; keys are moved by pointer or keyboard.
import { signed } from "./strengths.js";

const $ = (id) => document.getElementById(id);
const STEADY = 4; // px that a press may move and still be a press

export class Lanes {
  constructor(editor) {
    this.editor = editor;
    const lanes = $("lanes");
    lanes.addEventListener("click", (event) => { const key = event.target.closest("[data-at]"); if (key) editor.go(Number(key.dataset.at)); });
    lanes.addEventListener("keydown", (event) => this.keyed(event));
    lanes.addEventListener("pointerdown", (event) => this.grab(event));
    lanes.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) lanes.addEventListener(name, () => this.drop());
  }

  show() {
    const { rows, strengths } = this.editor, keyed = [...rows].filter(([name]) => strengths.all.get(name).keys);
    const focused = document.activeElement?.closest?.("[data-at]"), again = focused && [focused.dataset.of, focused.dataset.at];
    $("lanes").hidden = keyed.length === 0;
    $("hint").hidden = keyed.length > 0 || rows.size === 0;
    $("lanes").replaceChildren(...keyed.map(([name, { title }]) => this.lane(name, title)));
    if (again) ($("lanes").querySelector(`[data-of="${CSS.escape(again[0])}"][data-at="${again[1]}"]`) ?? $(`slider-${again[0]}`)).focus();
  }

  lane(name, title) {
    const { strengths, facts: { times }, most, frame } = this.editor, { keys } = strengths.all.get(name);
    const lane = document.createElement("div"), line = document.createElement("div");
    lane.className = "lane";
    line.className = "keys";
    const last = Math.max(1, times.length - 1), share = (at) => (100 * at) / last;
    const points = times.length > 400 ? keys.map(([when]) => times.indexOf(when)) : times.map((_, at) => at);
    const curve = [...new Set([0, ...points, last])].map((at) => `${share(at).toFixed(2)},${(50 - (46 * strengths.at(name, times[at] ?? 0)) / most).toFixed(1)}`);
    line.innerHTML = '<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true"><line x1="0" x2="100" y1="50" y2="50"/><polyline/><line class="now" y1="0" y2="100"/></svg>';
    line.querySelector("polyline").setAttribute("points", curve.join(" "));
    for (const end of ["x1", "x2"]) line.querySelector(".now").setAttribute(end, share(frame).toFixed(2));
    for (const [when, value] of keys) {
      const key = document.createElement("button"), at = times.indexOf(when);
      Object.assign(key, { type: "button", className: "at", title: `${title} ${signed(value)} at ${when.toFixed(2)} s` });
      Object.assign(key.dataset, { of: name, at });
      key.setAttribute("aria-label", `${key.title}; Enter goes there, left and right move it, Delete removes it`);
      key.style.left = `${share(at)}%`;
      key.style.top = `${50 - (46 * value) / most}%`;
      line.append(key);
    }
    lane.append(Object.assign(document.createElement("span"), { className: "small", textContent: title }), line);
    return lane;
  }

  keyed(event) {
    const key = event.target.closest("[data-at]");
    if (!key) return;
    const { strengths, facts: { times } } = this.editor, name = key.dataset.of, at = Number(key.dataset.at), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") strengths.toggle(name, times[at]);
    else if (!step || !strengths.move(name, times[at], times[at + step])) return;
    event.preventDefault();
    if (step) key.dataset.at = at + step; // the focus follows the key frame
    this.editor.changed();
  }

  grab(event) {
    const key = event.target.closest("[data-at]");
    if (!key || event.button !== 0) return;
    const { left, width } = key.parentElement.getBoundingClientRect();
    this.held = { name: key.dataset.of, at: Number(key.dataset.at), from: event.clientX, left, width, moved: false };
  }

  // A held key frame follows the pointer along its lane; a moment that has one already is left to it.
  drag(event) {
    const { held } = this;
    if (!held || (!held.moved && Math.abs(event.clientX - held.from) < STEADY)) return;
    if (!held.moved) $("lanes").setPointerCapture(event.pointerId); // the lanes are drawn anew, and the key with them
    held.moved = true;
    const { strengths, facts: { times } } = this.editor, last = times.length - 1;
    const to = Math.min(last, Math.max(0, Math.round((last * (event.clientX - held.left)) / held.width)));
    if (to === held.at || !strengths.move(held.name, times[held.at], times[to])) return;
    held.at = to;
    this.editor.changed(true);
  }

  drop() {
    const { held } = this;
    this.held = null;
    if (held?.moved) this.editor.settle();
  }
}
