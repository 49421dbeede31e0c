// The form of a new video: what is asked for, checked before it is sent.

import { Refusal, read, send, sentence } from "./api.js";
import { possible, record } from "./recorder.js";

const $ = (id) => document.getElementById(id);
const JOBS = "v1/jobs";

export class NewForm {
  /** `made` hears the receipt of a job and whether it is new; `refused` any Refusal. */
  constructor(made, refused, announce) {
    Object.assign(this, { made, refused, announce });
    this.recording = null;
    this.stop = null;
    $("new-form").onsubmit = (event) => {
      event.preventDefault();
      this.submit();
    };
    $("record").onclick = () => (this.stop ? this.stop() : this.start());
    $("recorded-drop").onclick = () => {
      this.keep(null);
      $("record").focus();
    };
    $("audio").onchange = () => $("audio").files.length && this.keep(null);
    $("face").onchange = () => ($("consent").hidden = !$("face").files.length);
    $("twice").onchange = () => ($("second").hidden = !$("twice").checked);
    document.querySelectorAll("[data-random]").forEach((button) => {
      button.onclick = () => ($(button.dataset.random).value = crypto.getRandomValues(new Uint32Array(1))[0]);
    });
  }

  async load() {
    const { models } = await read("v1/models");
    this.models = models;
    for (const id of ["model", "model-2"]) {
      $(id).replaceChildren(
        ...models.map((each, at) => new Option(`${each.system} · ${each.alias} (${each.preset})`, String(at))),
      );
    }
  }

  async start() {
    if (!possible()) {
      this.fault("This browser gives no microphone here: it does so only over https, or on the machine itself.");
      return;
    }
    this.fault(null);
    try {
      this.stop = await record(
        (seconds) => ($("record-time").textContent = `${Math.floor(seconds)} s`),
        (file, error) => this.stopped(file, error),
      );
    } catch (error) {
      const denied = error.name === "NotAllowedError";
      this.fault(denied ? "The browser was not allowed to use the microphone." : "There is no microphone that works.");
      return;
    }
    $("record").textContent = "Stop recording";
    $("record").classList.add("live");
    this.announce("Recording.");
  }

  stopped(file, error) {
    this.stop = null;
    $("record").textContent = "Record with the microphone";
    $("record").classList.remove("live");
    $("record-time").textContent = "";
    if (error) this.fault("The recording could not be read. Try again, or choose a file.");
    else {
      $("audio").value = "";
      this.keep(file);
      this.announce("Recorded.");
    }
  }

  keep(file) {
    if (this.recording) URL.revokeObjectURL($("recorded-sound").src);
    this.recording = file;
    $("recorded").hidden = !file;
    if (file) $("recorded-sound").src = URL.createObjectURL(file);
    else $("recorded-sound").removeAttribute("src");
  }

  fault(text, field) {
    $("form-fault").textContent = text ?? "";
    $("form-fault").hidden = !text;
    if (field) $(field).focus();
    document.querySelectorAll("#new-form [aria-invalid]").forEach((each) => each.removeAttribute("aria-invalid"));
    if (field) {
      $(field).setAttribute("aria-invalid", "true");
      $(field).setAttribute("aria-describedby", "form-fault");
    }
  }

  /** The form to send, or null after saying what is missing. */
  build() {
    const audio = this.recording ?? $("audio").files[0];
    if (!audio) return this.fault("Choose a recording, or record one.", "audio");
    if (!audio.size) return this.fault("The recording is empty.", "audio");
    const face = $("face").files[0];
    const row = {};
    const form = new FormData();
    form.append("audio", audio, "audio"); // the file's own name stays here
    if (face) {
      const part = face.type.startsWith("video/") ? "video" : "portrait";
      const who = $("consent-who").value.trim();
      const what = $("consent-what").value.trim();
      if (!who || who.includes(",")) return this.fault("Say who is shown, without a comma.", "consent-who");
      if (!what) return this.fault("Say what they agreed to.", "consent-what");
      if (!$("consent-given").checked) return this.fault("A face needs the consent of whom it shows.", "consent-given");
      form.append(part, face, part);
      row.consent = `${who}, ${what}`;
    }
    const versions = [];
    for (const end of $("twice").checked ? ["", "-2"] : [""]) {
      const seed = Number($(`seed${end}`).value);
      if ($(`seed${end}`).value === "" || !Number.isSafeInteger(seed) || seed < 0) {
        return this.fault("A seed is a whole number from 0 to 9007199254740991.", `seed${end}`);
      }
      const model = this.models[Number($(`model${end}`).value)];
      versions.push({ ...row, system: model.system, model: model.bundle, seed });
    }
    if (versions.length === 1) Object.entries(versions[0]).forEach(([name, value]) => form.append(name, String(value)));
    else {
      if (JSON.stringify(versions[0]) === JSON.stringify(versions[1])) {
        return this.fault("Both versions would be the same: change the second seed or model.", "seed-2");
      }
      const files = { audio: "audio" };
      for (const part of ["portrait", "video"]) if (form.has(part)) files[part] = part;
      form.append("items", JSON.stringify(versions.map((each, at) => ({ id: `version-${at + 1}`, ...files, ...each }))));
    }
    const own = $("audio").files[0] && !this.recording ? audio.name.replace(/\.[^.]*$/, "") : "Recording";
    const label = ($("label").value.trim() || own).replace(/[^\P{C}]|[\p{Z}]/gu, " ").slice(0, 200);
    form.append("label", label);
    return form;
  }

  async submit() {
    if (this.stop) return this.fault("Stop the recording first.", "record");
    if ($("submit").disabled) return undefined;
    this.fault(null);
    const form = this.build();
    if (!form) return undefined;
    $("submit").disabled = true;
    this.sent(0);
    const asked = Date.now() / 1000;
    try {
      const receipt = await send(JOBS, form, (share) => this.sent(share));
      this.announce(`Sent: ${form.get("label")}.`);
      await this.made(receipt, receipt.created >= asked - 120);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 401) this.refused(error);
      else this.fault(sentence(error.message));
    } finally {
      $("submit").disabled = false;
      $("sending").hidden = true;
    }
    return undefined;
  }

  sent(share) {
    $("sending").hidden = false;
    $("sent").value = share;
    $("sent-text").textContent = share < 1 ? `Sending, ${Math.round(100 * share)} %` : "Sent; the service looks at it";
  }
}
