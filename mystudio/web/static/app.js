// The page's frame: actions, uploads, dialogs, and what changes while it is open.
import { connect } from "./events.js";
import { bindUploads } from "./upload.js";

const rooms = ["record", "takes", "edit", "live", "verify"]; // rooms with a module of their own

export function say(text) {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { notice.textContent = ""; }, 6000);
}

// Post JSON; the answer says where to go, or an error in one sentence.
export async function post(url, values = {}) {
  let answer;
  try {
    answer = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) });
  } catch {
    throw new Error("The studio does not answer: start it again in the terminal. Nothing that was done is lost.");
  }
  const text = await answer.text();
  let told = {};
  try { told = JSON.parse(text); } catch { told = { error: text }; }
  if (!answer.ok) throw new Error(told.error || `The studio refused this (${answer.status}).`);
  return told;
}

export async function follow(told) {
  if (told.reload) location.reload();
  else if (told.go && told.go !== location.pathname) location.assign(told.go);
  else await refresh(true);
  if (told.say) say(told.say);
}

const served = new WeakMap(); // part of the page that changes by itself -> its text as the server gave it

// Replace the parts that have changed on the server. What a person is filling in stays, except after their own action.
export async function refresh(own = false) {
  const answer = await fetch(location.href).catch(() => null);
  if (!answer || !answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const old = [...document.querySelectorAll("[data-live]")];
  const filled = own ? null : document.querySelector("[data-live] form :is(input, select, textarea):focus");
  for (const part of old) {
    const now = fresh.getElementById(part.id), text = now?.outerHTML;
    if (!now || text === served.get(part) || part.contains(filled)) continue;
    const focused = part.contains(document.activeElement) ? document.activeElement.id || document.activeElement.dataset.post : null;
    part.replaceWith(document.adoptNode(now));
    served.set(now, text);
    if (focused) (document.getElementById(focused) || document.querySelector(`[data-post="${CSS.escape(focused)}"]`) || document.getElementById("main")).focus();
  }
  bind(document);
}

function values(form) {
  const out = {};
  for (const field of form.elements) {
    if (!field.name || field.type === "radio" && !field.checked) continue;
    out[field.name] = field.type === "checkbox" ? field.checked : field.type === "number" ? (field.value === "" ? null : Number(field.value)) : field.value;
  }
  return out;
}

async function act(element, work) {
  if (element.getAttribute("aria-busy")) return; // not disabled: a disabled button loses the focus
  const place = element.closest("[data-job], form, .card, section")?.querySelector("[role=alert]");
  if (place) place.textContent = "";
  element.setAttribute("aria-busy", "true");
  try {
    await follow(await work());
  } catch (error) {
    if (place) place.textContent = error.message; else say(error.message);
  } finally {
    element.removeAttribute("aria-busy");
  }
}

function bind(root) {
  for (const form of root.querySelectorAll("form[data-post]:not([data-bound])")) {
    form.dataset.bound = "1";
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      act(event.submitter || form.querySelector("button"), () => post(form.dataset.post, values(form)));
    });
  }
  for (const button of root.querySelectorAll("button[data-post]:not([data-bound])")) {
    button.dataset.bound = "1";
    button.addEventListener("click", () => {
      if (button.dataset.sure && !confirm(button.dataset.sure)) return;
      act(button, () => post(button.dataset.post, JSON.parse(button.dataset.values || "{}")));
    });
  }
  for (const button of root.querySelectorAll("[data-opens]:not([data-bound])")) {
    button.dataset.bound = "1";
    button.addEventListener("click", () => document.getElementById(button.dataset.opens).showModal());
  }
  for (const button of root.querySelectorAll("[data-closes]:not([data-bound])")) {
    button.dataset.bound = "1";
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  bindUploads(root, { follow, say });
  root.dispatchEvent(new CustomEvent("bound"));
}

for (const part of document.querySelectorAll("[data-live]")) served.set(part, part.outerHTML);
bind(document);
connect(() => refresh());
const here = document.querySelector(".rooms [aria-current]");
if (here) here.parentElement.scrollLeft = here.offsetLeft - (here.parentElement.clientWidth - here.offsetWidth) / 2;
const room = document.body.dataset.room;
if (rooms.includes(room)) import(`./${room}.js`).then((module) => module.start?.({ post, say, refresh, follow })).catch(() => {});
