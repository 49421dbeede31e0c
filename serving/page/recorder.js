// The microphone, as a WAV file: one channel of 16 bits, which every service takes.

const RATE = 24000; // Hz; speech has nothing of use above 12 kHz
const LONGEST = 600; // seconds

export const possible = () => Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);

/** Record until `stop()` of what is returned; `ticked` hears seconds, `done` the file, or an error. */
export async function record(ticked, done) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const parts = [];
  const start = performance.now();
  const timer = setInterval(() => {
    const seconds = (performance.now() - start) / 1000;
    ticked(seconds);
    if (seconds >= LONGEST) stop();
  }, 250);
  const stop = () => recorder.state !== "inactive" && recorder.stop();
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = async () => {
    clearInterval(timer);
    stream.getTracks().forEach((track) => track.stop());
    try {
      done(await toWav(new Blob(parts, { type: recorder.mimeType })), null);
    } catch (error) {
      done(null, error);
    }
  };
  recorder.start(1000);
  return stop;
}

async function toWav(blob) {
  const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await blob.arrayBuffer()); // at RATE
  const mono = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel += 1) {
    sound.getChannelData(channel).forEach((value, at) => (mono[at] += value / sound.numberOfChannels));
  }
  return new File([wav(mono)], "recording.wav", { type: "audio/wav" });
}

function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, value) => [...value].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, value)) * 32767, true));
  return view.buffer;
}
