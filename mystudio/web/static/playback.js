// Playing a take with edits that are not saved: in its own time, with as many pictures as the studio can draw.
const $ = (id) => document.getElementById(id);
const RECENT = 2000; // ms over which the rate is told, and two pictures at least

export class Playback {
  constructor(editor) {
    Object.assign(this, { editor, on: false, drawn: [] });
    $("play").addEventListener("click", () => (this.on ? this.stop() : this.start()));
  }

  start() {
    const { editor } = this, { times } = editor.facts, first = editor.frame < times.length - 1 ? editor.frame : 0;
    Object.assign(this, { on: true, drawn: [], began: performance.now() - 1000 * times[first] });
    this.label();
    this.next();
  }

  // Ask for the picture of the present moment; frames whose time has passed meanwhile are left out.
  next() {
    if (!this.on) return;
    const { times } = this.editor.facts, now = (performance.now() - this.began) / 1000;
    const frame = Math.max(0, times.findLastIndex((time) => time <= now));
    if (frame === this.asked) { // faster than the clip
      if (frame === times.length - 1) this.stop();
      else setTimeout(() => this.next(), 1000 * (times[frame + 1] - now));
      return;
    }
    this.asked = frame;
    this.editor.play(frame);
  }

  // A picture is shown; one that was asked for before the last does not count.
  shown(size, frame) {
    if (!this.on || frame !== this.asked) return;
    const now = performance.now(), recent = this.drawn.filter((when) => now - when < RECENT);
    this.drawn = [...(recent.length ? recent : this.drawn.slice(-1)), now];
    this.tell(size, now);
    if (this.asked === this.editor.facts.times.length - 1) this.stop();
    else this.next();
  }

  tell(size, now) {
    const [oldest] = this.drawn, { times } = this.editor.facts;
    if (this.drawn.length < 2) return;
    const rate = (1000 * (this.drawn.length - 1)) / (now - oldest), clip = (times.length - 1) / (times.at(-1) - times[0]);
    $("rate").textContent = `Preview: ${rate.toFixed(1)} pictures a second of ${size} px; the clip has ${clip.toFixed(0)}.`;
    Object.assign($("rate").dataset, { rate: rate.toFixed(2), size });
    $("rate").hidden = false;
  }

  // The whole size of the moment where it stops is drawn.
  stop() {
    if (!this.on) return;
    Object.assign(this, { on: false, asked: undefined });
    this.label();
    this.editor.settle();
  }

  label() {
    $("play").textContent = this.on ? "Stop" : "Play";
    $("play").dataset.on = this.on;
  }
}
