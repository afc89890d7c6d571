// A camera of the browser: devices, the mirrored picture, and small looks that go to the studio.
export const LONG = 640; // px, longer side of a look
const PATIENCE = 1500; // ms without an answer after which the next look goes out

export async function openCamera(video, id, width, height, exactly = false) {
  if (!navigator.mediaDevices) throw new Error("This browser gives no camera to this address: open the studio as 127.0.0.1 or localhost.");
  const side = (value) => exactly ? { exact: value } : { ideal: value };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { width: side(width), height: side(height), frameRate: { ideal: 30 }, ...(id ? { deviceId: { exact: id } } : {}) }, audio: false,
    });
  } catch (error) {
    throw new Error({
      NotAllowedError: "The browser does not give the camera to this page: allow it beside the address, then try again.",
      NotFoundError: "No camera was found: plug one in, then try again.",
      NotReadableError: "Another program uses the camera: close it, then try again.",
      OverconstrainedError: `The camera does not offer ${width} × ${height}: choose another one.`,
    }[error.name] || `The camera could not be opened (${error.name}).`);
  }
  video.srcObject = stream;
  await video.play();
  return stream;
}

export function closeCamera(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

export async function fillCameras(select, stream) {
  const now = stream.getVideoTracks()[0].getSettings().deviceId;
  const found = (await navigator.mediaDevices.enumerateDevices()).filter((one) => one.kind === "videoinput");
  select.replaceChildren(...found.map((one, k) => new Option(one.label || `Camera ${k + 1}`, one.deviceId, false, one.deviceId === now)));
}

// Send looks: at most `rate` a second, and none while `ahead` of them wait for an answer.
export class Looks {
  constructor(path, video, { rate, ahead = 1, long = LONG, answer, closed }) {
    Object.assign(this, { path, video, rate, ahead, long, answer, closed });
    this.canvas = document.createElement("canvas");
    this.clock = () => -1;
    this.ready = false;
    this.waiting = [];
    this.last = -1;
    this.hello = null;
    this.timer = setInterval(() => this.look(), 15);
    this.open();
  }

  get reduced() {
    return Math.max(1, Math.max(this.video.videoWidth, this.video.videoHeight) / this.long);
  }

  open() {
    this.socket = new WebSocket(`ws://${location.host}${this.path}`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => { if (this.hello) this.say(this.hello); };
    this.socket.onmessage = (event) => {
      const told = typeof event.data === "string" ? JSON.parse(event.data) : event.data;
      if (told.ready) { this.ready = true; return; }
      const time = told instanceof ArrayBuffer ? new DataView(told).getFloat64(0, true) : told.time;
      this.waiting = this.waiting.filter((look) => look.time > time); // older ones are not answered any more
      this.answer(told);
    };
    this.socket.onclose = (event) => {
      this.ready = false;
      this.waiting = [];
      if (this.timer) this.closed?.(event.code, () => setTimeout(() => this.timer && this.open(), 1000));
    };
  }

  // The first words of every connection; the looks begin when the studio is ready for them.
  say(values) {
    this.hello = values;
    this.ready = false;
    this.waiting = [];
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ reduced: this.reduced, ...values }));
  }

  tell(values) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(values));
  }

  look() {
    const now = performance.now();
    while (this.waiting.length && now - this.waiting[0].now > PATIENCE) this.waiting.shift();
    const time = this.clock(), tick = Math.floor(time * this.rate);
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN || this.waiting.length >= this.ahead || tick === this.last || !this.video.videoWidth) return;
    this.last = tick;
    const { canvas, video, reduced } = this;
    canvas.width = Math.round(video.videoWidth / reduced);
    canvas.height = Math.round(video.videoHeight / reduced);
    canvas.getContext("2d", { alpha: false }).drawImage(video, 0, 0, canvas.width, canvas.height);
    const text = atob(canvas.toDataURL("image/jpeg", 0.8).split(",")[1]); // toBlob waits for an idle moment
    const message = new Uint8Array(8 + text.length);
    new DataView(message.buffer).setFloat64(0, time, true);
    for (let k = 0; k < text.length; k++) message[8 + k] = text.charCodeAt(k);
    this.waiting.push({ now, time });
    this.socket.send(message);
  }

  close() {
    clearInterval(this.timer);
    this.timer = 0;
    this.socket.close();
  }
}
