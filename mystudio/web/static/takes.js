// Trimming by the player's own time, clips that move under the pointer, and the time line in step with the clip.
export function start() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-mark]");
    if (!button) return;
    const card = button.closest("[data-trim]");
    card.querySelector(`[name=${button.dataset.mark}]`).value = card.querySelector("video").currentTime.toFixed(2);
  });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  for (const [name, act] of [["pointerover", "play"], ["pointerout", "pause"], ["focusin", "play"], ["focusout", "pause"]]) {
    document.addEventListener(name, (event) => {
      const clip = event.target.closest?.(".clip")?.querySelector("video[data-hover]");
      if (clip && !still) Promise.resolve(clip[act]()).catch(() => {});
    });
  }
  const line = document.querySelector("[data-timeline]");
  if (!line) return;
  const clip = () => document.getElementById("clip");
  const step = () => {
    const now = document.querySelector("[data-now]"), video = clip();
    if (now && video && video.duration) now.setAttribute("x", (998 * video.currentTime / video.duration).toFixed(1));
    requestAnimationFrame(step);
  };
  step();
  document.addEventListener("click", (event) => {
    const bar = event.target.closest("[data-timeline]"), video = clip();
    if (!bar || !video || !video.duration) return;
    const box = bar.getBoundingClientRect();
    video.currentTime = video.duration * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  });
}
