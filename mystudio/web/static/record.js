// Record: the camera is recorded in pieces of a second; each goes to the studio at once. Small looks bring the advice.
import { Looks, closeCamera, fillCameras, openCamera } from "./camera.js";

const KINDS = ["video/webm;codecs=h264", "video/mp4;codecs=avc1.42E01E", "video/webm;codecs=vp8", "video/webm"];
const PIECE = 1000; // ms
const SOON = 8000; // ms
const HOLDS = 900; // ms that an advice stays at least
const $ = (id) => document.getElementById(id);

export function start({ post, say, follow, refresh }) {
  const room = $("recorder");
  if (!room) return;
  const { person } = room.dataset, rate = Number(room.dataset.rate), most = Number(room.dataset.most);
  const mirror = $("mirror");
  let looks = null, recorder = null, recording = null, queue = null, offset = 0, begun = 0, continued = null, advised = 0;

  const state = (name) => {
    room.dataset.state = name;
    $("clock").hidden = name !== "recording";
  };
  const fail = (text) => { $("failed").textContent = text; };
  const advise = (text, now = false) => {
    if (text === $("advice").textContent || !text || !now && performance.now() - advised < HOLDS) return;
    $("advice").textContent = text;
    advised = performance.now();
  };
  const sentence = (text) => text ? text[0].toUpperCase() + text.slice(1) : "";

  function answered(told) {
    if (told.error) { fail(told.error); return; }
    const [wrong] = told.wrong ?? [];
    $("warning").hidden = !wrong;
    if (wrong) $("warning").textContent = sentence(wrong);
    room.classList.toggle("wrong", Boolean(wrong));
    if (room.dataset.state === "ready") {
      $("begin").disabled = false;
      advise(wrong ? "Almost" : "The picture is good");
      return;
    }
    if (room.dataset.state !== "recording" || !told.groups) return;
    if (saying()) { /* the clock shows the words: no slow answer keeps them back */ }
    else if (told.todo.length) advise(sentence(told.todo[0]));
    else advise("Nothing is missing");
    show(told);
    if (told.enough) end();
  }

  function show({ groups, seen }) {
    const rests = room.querySelectorAll(".ring .rest");
    groups.forEach((share, k) => {
      const part = ringPart(rests[k], k, groups.length), width = 100 / groups.length - 3;
      const dash = `${(share * width).toFixed(1)} 100`;
      if (part.getAttribute("stroke-dasharray") !== dash) part.setAttribute("stroke-dasharray", dash);
      part.classList.toggle("good", share >= 1);
      const line = $("covered").children[k], marks = line.querySelectorAll("i");
      seen[k].forEach((is, n) => marks[n].classList.toggle("yes", is));
      line.querySelector("[data-count]").textContent = `${seen[k].filter(Boolean).length} of ${seen[k].length} seen`;
    });
  }

  function ringPart(rest, k, count) {
    const found = room.querySelector(`.ring .part[data-part="${k}"]`);
    if (found) return found;
    const made = rest.cloneNode(), width = 100 / count;
    made.setAttribute("class", "part");
    made.setAttribute("stroke-width", "3.2");
    made.setAttribute("stroke-dashoffset", (-width * k - 1.5).toFixed(2));
    made.dataset.part = k;
    rest.parentNode.append(made);
    return made;
  }

  async function turnOn() {
    fail("");
    const [width, height] = (continued?.size ?? $("resolution").value).split("x").map(Number);
    try {
      closeCamera(mirror);
      const stream = await openCamera(mirror, $("camera").value, width, height, Boolean(continued));
      await fillCameras($("camera"), stream);
      stream.getVideoTracks()[0].onended = () => { fail("The camera stopped. What was recorded is kept."); stop(); };
    } catch (error) {
      fail(error.message);
      return;
    }
    if (!looks) {
      looks = new Looks(`/p/${person}/guide`, mirror, {
        rate, answer: answered,
        closed: (code, again) => {
          if (code === 1013) fail("Too many pages give advice at once: close one of them. You can record without advice.");
          $("begin").disabled = false; // without advice
          again();
        },
      });
    }
    looks.clock = () => performance.now() / 1000;
    looks.say({ recording: "" });
    $("hint").textContent = continued ? `${Math.round(continued.seconds)} s are kept. The recording goes on from there.` : "Nothing is kept yet.";
    $("begin").textContent = continued ? "Go on" : "Begin to record";
    advise("One moment", true);
    $("begin").disabled = true; // until the first answer, or until that takes too long
    setTimeout(() => { $("begin").disabled = false; }, SOON);
    state("ready");
  }

  function turnOff() {
    looks?.close();
    looks = null;
    closeCamera(mirror);
    room.classList.remove("wrong");
    $("warning").hidden = true;
    advise("Show yourself for half a minute", true);
    state("off");
  }

  async function begin() {
    fail("");
    const stream = mirror.srcObject, kind = KINDS.find((one) => window.MediaRecorder?.isTypeSupported(one));
    if (!kind) { fail("This browser cannot record: use a newer one, or drop a clip in the Scan room."); return; }
    const { videoWidth: width, videoHeight: height } = mirror;
    $("begin").disabled = true;
    try {
      recording = await post(`/p/${person}/record`, { width, height, ending: kind.includes("mp4") ? ".mp4" : ".webm", recording: continued?.id ?? "" });
    } catch (error) {
      fail(error.message);
      return;
    } finally {
      $("begin").disabled = false;
    }
    offset = recording.seconds;
    queue = new Pieces(`/p/${person}/record/${recording.recording}/${recording.part}`, (text) => { $("kept").textContent = text; });
    recorder = new MediaRecorder(stream, { mimeType: kind, videoBitsPerSecond: Math.min(16e6, 9 * width * height) });
    recorder.ondataavailable = (event) => { if (event.data.size) queue.add(event.data, passed()); };
    recorder.onstart = () => {
      begun = performance.now();
      looks.clock = () => offset + passed();
      looks.say({ recording: recording.recording });
    };
    recorder.onerror = () => { fail("The browser stopped the recording. What was recorded is kept."); stop(); };
    recorder.onstop = finish;
    recorder.start(PIECE);
    begun = performance.now();
    advise("Look into the camera", true);
    state("recording");
    tick();
  }

  const passed = () => (performance.now() - begun) / 1000;
  const saying = () => recording?.words.find(([, from, to]) => offset + passed() >= from && offset + passed() < to)?.[0];

  function tick() {
    if (room.dataset.state !== "recording") return;
    const seconds = offset + passed();
    if (saying()) advise(`Say: “${saying()}”`, true);
    else if ($("advice").textContent.startsWith("Say:")) advise("Move slowly", true);
    $("clock").querySelector("b").textContent = `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
    if (seconds >= most) end(); else setTimeout(tick, 100);
  }

  function end() {
    if (room.dataset.state !== "recording") return;
    state("sending");
    advise("Thank you", true);
    $("warning").hidden = true;
    stop();
  }

  const stop = () => { if (recorder?.state === "recording") recorder.stop(); };

  async function finish() {
    state("sending");
    looks?.close();
    looks = null;
    closeCamera(mirror);
    try {
      await queue.done();
      $("sending").textContent = "The recording becomes a clip.";
      const told = await post(`/p/${person}/record/${recording.recording}/finish`);
      recording = null;
      await follow(told);
    } catch (error) {
      fail(error.message);
      recording = continued = null;
      state("off");
      await refresh();
    }
  }

  $("turn-on").disabled = false;
  $("turn-on").addEventListener("click", () => { continued = null; turnOn(); });
  $("turn-off").addEventListener("click", turnOff);
  $("begin").addEventListener("click", begin);
  $("end").addEventListener("click", end);
  for (const id of ["camera", "resolution"]) $(id).addEventListener("change", () => { continued = null; turnOn(); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-continue]");
    if (!button || !["off", "ready"].includes(room.dataset.state)) return;
    continued = { id: button.dataset.continue, size: button.dataset.size, seconds: Number(button.dataset.seconds) };
    room.scrollIntoView({ block: "center" });
    turnOn();
  });
  window.addEventListener("beforeunload", (event) => { if (["recording", "sending"].includes(room.dataset.state)) event.preventDefault(); });
}

// Pieces go to the studio one after the other; where it does not answer, they wait in the page and go again.
class Pieces {
  constructor(path, told) {
    Object.assign(this, { path, told, waiting: [], number: 0, sending: null, error: null });
  }

  add(blob, seconds) {
    this.waiting.push({ blob, seconds, number: this.number++ });
    this.sending ??= this.send().finally(() => { this.sending = null; });
  }

  async send() {
    while (this.waiting.length && !this.error) {
      const { blob, seconds, number } = this.waiting[0];
      try {
        const answer = await fetch(`${this.path}/${number}?seconds=${seconds.toFixed(3)}`, { method: "POST", body: blob });
        if (answer.ok) {
          this.waiting.shift();
          this.told(`${number + 1} s kept on the disk`);
          continue;
        }
        if (answer.status < 500 && answer.status !== 429) {
          this.error = new Error((await answer.json().catch(() => ({}))).error || `The studio refused a piece (${answer.status}).`);
          return;
        }
      } catch { /* the studio is away: again below */ }
      this.told(`The studio does not answer: ${this.waiting.length} s wait in this page. Start it again; nothing is lost.`);
      await new Promise((go) => setTimeout(go, 1000));
    }
  }

  async done() {
    while (this.sending) await this.sending;
    if (this.error) throw this.error;
  }
}
