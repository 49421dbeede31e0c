// The page: the key, the form, the list of jobs, kept up to date while anybody looks.

import { Refusal, ask, key, read } from "./api.js";
import { Compare } from "./compare.js";
import { NewForm } from "./form.js";
import { Job } from "./jobs.js";

const $ = (id) => document.getElementById(id);
const PAGE = 20; // jobs
const BUSY_MS = 1000; // between two looks while something is being made
const IDLE_MS = 10000;

const jobs = new Map();
let shown = PAGE;
let timer = 0;
let looking = null; // the promise of the look under way

const news = [];
let telling = 0;

/** One after another: a reader that is told two things at once tells the last. */
function announce(text) {
  news.push(text);
  if (!telling) tell();
}

function tell() {
  $("news").textContent = news.shift() ?? "";
  telling = news.length ? setTimeout(tell, 1000) : 0;
}

function trouble(text) {
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

const compare = new Compare(announce);
const form = new NewForm(submitted, refused, announce);
const page = { announce, compare, remove, refused, changed: () => refresh(), models: () => form.models ?? [] };

function refused(error) {
  if (error.status === 401) leave(error.message);
  else trouble(error.message);
}

async function enter() {
  trouble("");
  try {
    await form.load();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.status === 401) key.forget();
    $("enter").hidden = false;
    trouble(error.message);
    return;
  }
  $("enter").hidden = true;
  $("key").value = "";
  $("work").hidden = false;
  $("who").hidden = false;
  $("who-key").textContent = `Key ${key.get().slice(0, 7)}…`;
  await refresh();
}

function leave(why) {
  clearTimeout(timer);
  form.stop?.();
  key.forget();
  compare.close(false);
  jobs.forEach((job) => job.leave());
  jobs.clear();
  $("work").hidden = true;
  $("who").hidden = true;
  $("enter").hidden = false;
  trouble(why);
  $("key").focus();
}

async function submitted(receipt, fresh) {
  await refresh();
  const job = jobs.get(receipt.job);
  if (!job) return;
  if (!fresh) announce(`${job.title} was asked for before: here it is.`);
  job.details.open = true;
  job.element.scrollIntoView({ block: "nearest" });
}

/** Bring the list up to date, one look at a time, and come back. */
async function refresh() {
  while (looking) await looking;
  clearTimeout(timer);
  looking = look();
  await looking;
}

async function look() {
  const asked = key.get();
  let pause = IDLE_MS;
  try {
    if (!asked) return;
    const { jobs: told, next } = await read(`v1/jobs?limit=${shown}`);
    if (key.get() !== asked) return; // forgotten meanwhile: these are nobody's any more
    arrange(told);
    $("older").hidden = next === null || shown >= 1000;
    for (const job of jobs.values()) await job.refresh();
    trouble("");
    if (told.some((each) => each.state === "queued" || each.state === "running")) pause = BUSY_MS;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    refused(error);
    pause = 1000 * (error.wait ?? 5);
  } finally {
    looking = null;
    if (key.get() && !document.hidden) timer = setTimeout(refresh, pause);
  }
}

function arrange(told) {
  const there = new Set(told.map((each) => each.job));
  [...jobs.values()].filter((job) => !there.has(job.id)).forEach(drop);
  told.forEach((each, at) => {
    if (jobs.has(each.job)) jobs.get(each.job).update(each);
    else jobs.set(each.job, new Job(each, page));
    const { element } = jobs.get(each.job);
    if ($("jobs").children[at] !== element) $("jobs").insertBefore(element, $("jobs").children[at] ?? null);
  });
  $("none").hidden = told.length > 0;
}

function drop(job) {
  job.leave();
  jobs.delete(job.id);
  $("none").hidden = jobs.size > 0;
}

async function remove(job) {
  $("sure-text").textContent = `${job.title}: its videos and what was sent for them go, unless another job has them too.`;
  $("sure").showModal();
  $("sure-no").onclick = () => $("sure").close();
  $("sure-yes").onclick = async () => {
    $("sure").close();
    await job.guarded(async () => {
      await ask("DELETE", `v1/jobs/${job.id}`);
      const next = job.element.nextElementSibling?.querySelector("summary") ?? $("jobs-title");
      drop(job);
      next.focus();
      announce("Deleted.");
    });
  };
}

$("key-form").onsubmit = (event) => {
  event.preventDefault();
  const given = $("key").value.trim();
  if (!key.looksRight(given)) {
    trouble("That does not look like a key: it is one word that begins with vf_.");
    $("key").focus();
    return;
  }
  key.set(given);
  enter().then(() => $("enter").hidden && $("new-title").focus());
};
$("forget").onclick = () => leave("");
$("older").onclick = () => {
  shown = Math.min(1000, shown + PAGE);
  refresh();
};
document.addEventListener("visibilitychange", () => document.hidden || refresh());

if (key.get()) enter();
else {
  $("enter").hidden = false;
  $("key").focus();
}
