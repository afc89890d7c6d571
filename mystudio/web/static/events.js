// What happens to jobs, over one websocket: bars move at once; a change of state refreshes the page.
const words = (seconds) => {
  if (seconds == null) return "measuring the speed";
  if (seconds < 5) return "a moment left";
  if (seconds < 90) return `${Math.round(seconds / 5) * 5} s left`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min left` : `${Math.floor(minutes / 60)} h ${minutes % 60} min left`;
};

// Whether the page must be drawn anew: "new" = it does not show the job, "other" = it shows another state of it.
function show(job) {
  let changed = document.querySelector(`[data-job="${job.id}"]`) ? "" : "new";
  for (const place of document.querySelectorAll(`[data-job="${job.id}"]`)) {
    if (place.dataset.state !== job.state || (place.dataset.preview ?? job.seen) !== job.seen) changed = "other";
    const bar = place.querySelector("progress");
    if (bar && job.share != null) bar.value = job.share;
    const ring = place.querySelector(".ring .part");
    if (ring && job.share != null) ring.setAttribute("stroke-dasharray", `${(job.share * Number(ring.dataset.width)).toFixed(2)} 100`);
    const left = place.querySelector("[data-left]");
    if (left && job.state === "running") left.textContent = words(job.left);
    const stage = place.querySelector("[data-stage]");
    if (stage && job.state === "running") stage.textContent = job.stage;
  }
  return changed;
}

export function connect(refresh) {
  let wait = 500, number = 0, timer = 0, hello = false;
  const soon = () => { clearTimeout(timer); timer = setTimeout(refresh, 150); };
  const open = () => {
    const socket = new WebSocket(`ws://${location.host}/events?since=${number}`);
    socket.onopen = () => { wait = 500; document.body.dataset.online = "yes"; if (hello) soon(); hello = true; };
    socket.onmessage = (event) => {
      const told = JSON.parse(event.data);
      number = told.number;
      const changes = told.jobs.map(show);
      if (changes.includes("other") || !told.first && (changes.includes("new") || told.removed.length)) soon();
    };
    socket.onclose = () => {
      document.body.dataset.online = "no";
      setTimeout(open, wait);
      wait = Math.min(2 * wait, 5000);
    };
  };
  open();
}
