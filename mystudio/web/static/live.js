// Live: looks of the camera go to the studio, and pictures of the avatar come back.
import { Looks, closeCamera, fillCameras, openCamera } from "./camera.js";

const RATE = 30, AHEAD = 3; // looks a second at most, and how many may wait for their pictures
const LOOK = 480; // px, longer side of a look
const HEAD = 9; // bytes before a picture: time of its look, outcome
const PACE = 2000; // ms over which frames are counted
const $ = (id) => document.getElementById(id);

export function start({ refresh, say }) {
  const room = $("live");
  if (!room) return;
  const { person } = room.dataset, followed = Number(room.dataset.followed);
  const mirror = $("mirror"), shown = $("shown"), title = $("advice").textContent;
  let looks = null, recording = false, begun = 0, ended = null, times = [], missed = 0;

  const state = (name) => { room.dataset.state = name; };
  const fail = (text) => { $("failed").textContent = text; };

  async function draw(message) {
    const view = new DataView(message), picture = await createImageBitmap(new Blob([new Uint8Array(message, HEAD)], { type: "image/jpeg" }));
    if (shown.width !== picture.width) shown.width = shown.height = picture.width;
    shown.getContext("2d", { alpha: false }).drawImage(picture, 0, 0);
    picture.close();
    missed = view.getUint8(8) === followed ? 0 : missed + 1;
    $("warning").hidden = missed < 5;
    $("warning").textContent = "No face: look into the camera, in good light";
    const now = performance.now();
    times = [...times.filter((time) => now - time < PACE), now];
    const rate = times.length > 1 ? (times.length - 1) / ((now - times[0]) / 1000) : 0;
    if (times.length > 5) $("pace").textContent = `${rate.toFixed(0)} frames a second, ${picture.width || shown.width} px`;
    $("advice").textContent = title;
  }

  function connect(record) {
    const from = performance.now();
    recording = record;
    times = [];
    looks = new Looks(`/p/${person}/follow`, mirror, {
      rate: RATE, ahead: AHEAD, long: LOOK,
      answer: (told) => {
        if (told instanceof ArrayBuffer) draw(told);
        else if (told.error) { fail(told.error); turnOff(); }
        else if (told.ended) { ended?.(told); ended = null; }
      },
      closed: (code, again) => {
        if (code === 1013) { fail("The avatar is live in another tab, or is just ending there: close it and turn on the camera again."); turnOff(); }
        else if (ended) { ended({}); ended = null; } else if (code !== 1000) again();
      },
    });
    looks.clock = () => (performance.now() - from) / 1000;
    looks.say({ record });
    begun = performance.now();
    $("record").textContent = record ? "End the recording" : "Record";
    $("record").setAttribute("aria-pressed", String(record));
    $("clock").hidden = !record;
    if (record) tick();
  }

  // End the present connection and wait until a recording is written.
  async function disconnect() {
    if (!looks) return {};
    const done = new Promise((told) => { ended = told; });
    looks.ready = false;
    looks.tell({ end: true });
    const told = await Promise.race([done, new Promise((late) => setTimeout(() => late({}), 30000))]);
    looks.close();
    looks = null;
    return told;
  }

  async function turnOn() {
    fail("");
    try {
      closeCamera(mirror);
      const stream = await openCamera(mirror, $("camera").value, 640, 480);
      await fillCameras($("camera"), stream);
      stream.getVideoTracks()[0].onended = () => { fail("The camera stopped."); turnOff(); };
    } catch (error) {
      fail(error.message);
      return;
    }
    $("pace").textContent = "The avatar is being loaded.";
    if (!looks) connect(false);
    state("on");
  }

  async function turnOff() {
    const was = recording;
    state("off");
    $("clock").hidden = true;
    $("warning").hidden = true;
    closeCamera(mirror);
    await disconnect();
    recording = false;
    if (was) await refresh();
  }

  async function toggle() {
    const button = $("record"), was = recording;
    button.disabled = true;
    $("pace").textContent = was ? "The clip is being finished." : "The recording begins.";
    const told = await disconnect();
    if (room.dataset.state === "on") connect(!was);
    button.disabled = false;
    if (told.clip) { say("The recording is kept below."); await refresh(); }
  }

  function tick() {
    if (!recording || room.dataset.state !== "on") return;
    const seconds = Math.floor((performance.now() - begun) / 1000);
    $("clock").querySelector("b").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    setTimeout(tick, 250);
  }

  $("turn-on").disabled = false;
  $("turn-on").addEventListener("click", turnOn);
  $("turn-off").addEventListener("click", turnOff);
  $("camera").addEventListener("change", turnOn);
  $("record").addEventListener("click", toggle);
  $("rest").addEventListener("click", () => looks?.tell({ neutral: true }));
  $("full").addEventListener("click", () => { if (document.fullscreenElement) document.exitFullscreen(); else $("stage").requestFullscreen(); });
}
