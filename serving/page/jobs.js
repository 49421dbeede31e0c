// The list: a job is a row that opens, an item a video in it. What stands on the page is changed, never made anew.

import { Refusal, ask, read, sentence } from "./api.js";

const STATES = {
  queued: "waiting",
  running: "being made",
  done: "done",
  rejected: "rejected",
  failed: "failed",
  cancelled: "cancelled",
};
const FAULTS = {
  rejected: "The service could not use this.",
  failed: "This could not be made, through no fault of the recording. Submit it again, and it is tried once more.",
  cancelled: "Cancelled. Submit it again, and it is made.",
};
const REASONS = {
  BAD_CONTAINER: "This is no file that the service can read.",
  DECODE_ERROR: "The file is damaged.",
  FACE_SMALL: "The face in the picture is too small.",
  HASH_MISMATCH: "What was sent changed before it was used. Submit it again.",
  MANY_FACES: "There is more than one face in the picture.",
  MISSING_FILE: "What was sent is not there any more. Submit it again.",
  NO_AUDIO: "There is no sound in the file.",
  NO_FACE: "No face was found in the picture.",
  SILENT: "Nothing is to be heard in the recording.",
  TIMEOUT: "Reading the file took too long.",
  TOO_LONG: "The recording is too long.",
  TOO_MANY_PIXELS: "The picture is too large.",
  TOO_SHORT: "The recording is too short.",
  TRUNCATED: "The file ends before its end.",
};
const STEP = 20; // items shown at once
const OWN = 2; // a job of no more items shows its videos by itself
const open = (state) => state === "queued" || state === "running";

function node(tag, text, of = {}) {
  return Object.assign(document.createElement(tag), text === undefined ? of : { textContent: text, ...of });
}

function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

/** One job of the list. `page` has announce, compare, remove, refused and changed. */
export class Job {
  constructor(told, page) {
    Object.assign(this, { page, id: told.job, items: new Map(), wanted: STEP, seen: "" });
    this.element = document.getElementById("job-template").content.firstElementChild.cloneNode(true);
    this.details = this.element.firstElementChild;
    this.details.ontoggle = () => this.details.open && this.load();
    const button = (name, act) => (this.part(`.actions > .${name}`).onclick = () => this.guarded(act));
    button("cancel", () => this.cancel());
    button("delete", () => page.remove(this));
    button("both", () => page.compare.choose([...this.items.values()]));
    button("more", () => {
      this.wanted += STEP;
      return this.load();
    });
    this.update(told);
  }

  part(selector) {
    return this.details.querySelector(selector);
  }

  get title() {
    return this.told.label || "Without a name";
  }

  update(told) {
    const before = this.told;
    this.told = told;
    const { counts } = told;
    const all = Object.values(counts).reduce((sum, each) => sum + each, 0);
    const state = told.state === "done" && counts.done < all ? (counts.failed ? "failed" : "rejected") : told.state;
    const word = state === told.state || !counts.done ? STATES[state] : `${counts.done} of ${all} done`;
    show(this.part(".label"), this.title);
    show(this.part(".state"), word);
    this.part(".state").dataset.state = state;
    const about = [new Date(told.created * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })];
    if (all > 1) about.push(open(told.state) ? `${all - counts.queued - counts.running} of ${all} ended` : `${all}\u00a0videos`);
    show(this.part(".about"), about.join(" ·\u00a0"));
    this.part(".cancel").hidden = !open(told.state);
    if (before && before.state !== told.state) this.page.announce(`${this.title}: ${word}.`);
  }

  /** Ask for the items where the row is open and they may have changed. */
  async refresh() {
    const now = JSON.stringify(this.told);
    if (this.details.open && (open(this.told.state) || this.seen !== now)) await this.load();
  }

  async load() {
    await this.guarded(async () => {
      const now = JSON.stringify(this.told);
      const { items, next } = await read(`v1/jobs/${this.id}/items?limit=${Math.min(1000, this.wanted)}`);
      for (const told of items) {
        if (!this.items.has(told.number)) {
          const item = new Item(this, told);
          this.items.set(told.number, item);
          this.part(".items").append(item.element);
        }
        this.items.get(told.number).update(told, items.length);
      }
      this.part(".more").hidden = next === null;
      this.seen = now;
      this.offer();
    });
  }

  offer() {
    const ready = [...this.items.values()].filter((item) => item.artifact);
    this.part(".both").hidden = !(this.items.size === 2 && ready.length === 2);
  }

  async cancel() {
    this.update(await (await ask("POST", `v1/jobs/${this.id}/cancel`)).json());
    await this.load();
    this.part("summary").focus();
  }

  async guarded(act) {
    try {
      await act();
      show(this.part(":scope > .fault"), "");
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 404) this.page.changed();
      else if (error.status === 401) this.page.refused(error);
      else show(this.part(":scope > .fault"), error.message);
    }
  }

  leave() {
    this.items.forEach((item) => item.clear());
    this.element.remove();
  }
}

class Item {
  constructor(job, told) {
    this.job = job;
    this.number = told.number;
    this.element = document.getElementById("item-template").content.firstElementChild.cloneNode(true);
    this.artifact = null;
    this.busy = false;
    this.quarter = 0;
    this.part(".show").onclick = () => this.fetch();
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  update(told, count) {
    const before = this.told;
    this.told = told;
    const own = /^\d+$/.test(told.name) ? `Video ${told.number + 1}` : told.name.replace("-", " ");
    show(this.part("h3"), count > 1 ? own : "");
    if (count > 1) this.part(".show").setAttribute("aria-label", `Show the video: ${own}`);
    this.move(told);
    const fault = FAULTS[told.state] ? (REASONS[told.code] ?? FAULTS[told.state]) : "";
    this.tell(fault, told.state === "cancelled" ? "" : (told.detail ?? told.code));
    this.part(".fault").classList.toggle("mild", told.state === "cancelled");
    if (fault && before && before.state !== told.state) this.job.page.announce(fault);
    if (told.state !== "done" || (this.artifact && this.artifact.result !== told.result)) this.clear();
    const missing = told.state === "done" && !this.artifact && !this.busy;
    this.part(".ask").hidden = !missing;
    if (missing && count <= OWN && before?.state !== "done") this.fetch();
  }

  /** What is wrong, in words, and what exactly the service says of it. */
  tell(fault, detail) {
    show(this.part(".fault > p"), fault);
    show(this.part(".fault > .hint"), fault && detail ? sentence(detail) : "");
    this.part(".fault").hidden = !fault;
  }

  move({ state, done, frames }) {
    const bar = this.part("progress");
    this.part(".moving").hidden = !open(state);
    bar.setAttribute("aria-label", `Frames made of ${this.job.title}`);
    if (state === "running" && frames) Object.assign(bar, { max: frames, value: done });
    else if (state === "queued") Object.assign(bar, { max: 1, value: 0 });
    else bar.removeAttribute("value");
    const words = state === "queued" ? "Waiting for its turn" : frames ? `${done} of ${frames} frames` : "Starting";
    show(this.part(".moving span"), words);
    const quarter = frames ? Math.floor((4 * done) / frames) : 0;
    if (state === "running" && quarter > this.quarter) {
      this.job.page.announce(`${this.job.title}: ${25 * quarter} per cent.`); // not every frame: it would never be silent
    }
    this.quarter = quarter;
  }

  async fetch() {
    this.busy = true;
    this.part(".ask").hidden = true;
    const { result } = this.told;
    try {
      const base = `v1/jobs/${this.job.id}/items/${this.number}`;
      const blob = async (name) => (await ask("GET", `${base}/${name}`)).blob();
      const note = await blob("sidecar");
      const text = await note.text();
      const [video, face] = await Promise.all([blob("video"), JSON.parse(text).portrait ? blob("portrait") : null]);
      this.present({ text, note, video, face, result });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 401) this.job.page.refused(error);
      this.tell(error.message);
      this.part(".ask").hidden = false;
    } finally {
      this.busy = false;
    }
    this.job.offer();
  }

  present({ text, note, video, face, result }) {
    this.clear();
    const made = JSON.parse(text);
    const seed = text.match(/"seed":\s*(\d+)/)?.[1] ?? String(made.inputs.seed); // beyond 2^53 a Number would round it
    const { models } = this.job.page;
    const alias = models().find((each) => each.bundle === made.inputs.bundle)?.alias;
    const data = [...new Set(Object.values(made.stages).map((stage) => stage.dataset))];
    const model = `${made.inputs.bundle.slice(0, 12)}${alias ? ` (${alias})` : ""}`;
    const short = (digests) => digests.map((each) => each.slice(0, 12)).join(", ");
    const urls = { video: URL.createObjectURL(video), note: URL.createObjectURL(note), face: face && URL.createObjectURL(face) };
    const lines = [`Model ${model}`, `Data ${short(data)}`, `Seed ${seed}`];
    this.artifact = { result, urls, url: urls.video, title: `${made.system} (${made.preset})`, lines };
    const facts = [
      ["System", `${made.system} (${made.preset})`, ""],
      ["Model", model, made.inputs.bundle],
      ["Data version", short(data), data.join(" ")],
      ["Seed", seed, ""],
      ["Length", `${made.seconds.toFixed(1)} s, ${made.frames} frames`, ""],
      ["Made by", `voxface ${made.voxface}`, ""],
    ];
    if (made.inputs.consent) facts.push(["Consent", `${made.inputs.consent.who}: ${made.inputs.consent.purpose}`, ""]);
    this.part(".facts").replaceChildren(
      ...facts.map(([name, value, title]) => {
        const row = node("div");
        row.classList.toggle("long", value.length > 40);
        row.append(node("dt", name), node("dd", value, { title }));
        return row;
      }),
    );
    show(this.part(".disclosure"), made.disclosure);
    this.picture(urls);
    this.links(seed, urls);
    this.part(".result").hidden = false;
  }

  picture(urls) {
    const [image, video] = [this.part("img"), this.part("video")];
    video.setAttribute("aria-label", `Video of ${this.job.title}`);
    image.alt = urls.face ? "The face that is animated" : "The first frame of the video";
    this.part("figcaption").textContent = urls.face ? "Portrait" : "First frame";
    if (urls.face) image.src = urls.face;
    else video.addEventListener("loadeddata", () => this.still(video, image, urls), { once: true });
    video.src = urls.video;
  }

  still(video, image, urls) {
    const canvas = node("canvas", undefined, { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => blob && this.artifact?.urls === urls && (image.src = urls.face = URL.createObjectURL(blob)));
  }

  links(seed, urls) {
    // the names that `voxface inspect` looks for beside each other
    const name = `${this.job.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "talk"}-${this.number + 1}-seed-${seed}`;
    const link = (text, href, download) => node("a", text, { href, download, className: "button" });
    this.compare = node("button", "Compare", { type: "button", className: "compare" });
    this.compare.setAttribute("aria-pressed", "false");
    this.compare.onclick = () => this.job.page.compare.toggle(this);
    this.part(".links").replaceChildren(
      link("Download video", urls.video, `${name}.mp4`),
      link("Sidecar", urls.note, `${name}.mp4.json`),
      ...(urls.face ? [link("Portrait", urls.face, `${name}.portrait.png`)] : []),
      this.compare,
    );
  }

  mark(chosen) {
    this.compare?.setAttribute("aria-pressed", String(chosen));
  }

  clear() {
    if (!this.artifact) return;
    this.job.page.compare.drop(this);
    Object.values(this.artifact.urls).forEach((url) => url && URL.revokeObjectURL(url));
    this.artifact = null;
    this.part("video").removeAttribute("src");
    this.part(".result").hidden = true;
    this.job.offer();
  }
}
