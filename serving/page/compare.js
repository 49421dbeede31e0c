// Two finished videos side by side, played as one.

const APART = 0.08; // seconds, two frames: further apart, the one follows the other
const $ = (id) => document.getElementById(id);
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

export class Compare {
  constructor(announce) {
    this.announce = announce;
    this.chosen = [];
    this.videos = [$("left"), $("right")];
    this.playing = false;
    $("both").onclick = () => (this.playing ? this.pause() : this.play());
    $("compare-close").onclick = () => this.close(true);
    $("sound").onchange = () => this.listen();
    $("place").oninput = () => this.seek(Number($("place").value));
    this.videos.forEach((video) => (video.onloadedmetadata = () => this.measure()));
  }

  /** Choose an item, or let it go; the second that is chosen opens the view. */
  toggle(item) {
    if (this.chosen.includes(item)) this.choose(this.chosen.filter((each) => each !== item));
    else this.choose([...this.chosen, item].slice(-2));
    if (this.chosen.length === 1) this.announce("Choose a second video to compare with.");
  }

  choose(items) {
    const old = this.chosen;
    this.chosen = items;
    [...old, ...items].forEach((item) => item.mark(items.includes(item)));
    if (items.length === 2) this.open();
    else this.hide();
  }

  drop(item) {
    if (this.chosen.includes(item)) this.choose(this.chosen.filter((each) => each !== item));
  }

  open() {
    this.pause();
    this.videos.forEach((video, side) => {
      const { url, title, lines } = this.chosen[side].artifact;
      video.src = url;
      const caption = video.parentElement.querySelector("figcaption");
      const strong = document.createElement("strong");
      strong.textContent = title;
      caption.replaceChildren(strong, ...lines.map((line) => Object.assign(document.createElement("span"), { textContent: line })));
    });
    $("compare").hidden = false;
    this.listen();
    $("compare-title").focus();
    $("compare").scrollIntoView({ block: "start" });
  }

  hide() {
    this.pause();
    $("compare").hidden = true;
    this.videos.forEach((video) => video.removeAttribute("src"));
  }

  close(back) {
    const [first] = this.chosen;
    this.choose([]);
    if (back && first) first.compare.focus();
  }

  measure() {
    const longest = Math.max(...this.videos.map((video) => video.duration || 0));
    $("place").max = String(longest);
    this.show();
  }

  /** The longer one leads. */
  get lead() {
    const [left, right] = this.videos;
    return (right.duration || 0) > (left.duration || 0) ? right : left;
  }

  async play() {
    const { lead } = this;
    if (lead.ended || lead.currentTime >= lead.duration - 0.05) this.seek(0);
    this.playing = true;
    $("both").textContent = "Pause both";
    const going = this.videos.filter((video) => video === lead || lead.currentTime < video.duration);
    await Promise.allSettled(going.map((video) => video.play()));
    this.follow();
  }

  pause() {
    this.playing = false;
    $("both").textContent = "Play both";
    this.videos.forEach((video) => video.pause());
  }

  seek(seconds) {
    this.videos.forEach((video) => (video.currentTime = Math.min(seconds, video.duration || 0)));
    this.show();
  }

  listen() {
    this.videos.forEach((video) => (video.muted = $("sound").value !== video.id));
  }

  follow() {
    if (!this.playing) return;
    const { lead } = this;
    const other = this.videos.find((video) => video !== lead);
    const apart = Math.abs(other.currentTime - lead.currentTime);
    if (apart > APART && !other.seeking && !other.ended && lead.currentTime < other.duration) {
      other.currentTime = lead.currentTime;
    }
    this.show();
    if (lead.ended) this.pause();
    else requestAnimationFrame(() => this.follow());
  }

  show() {
    const now = this.lead.currentTime;
    $("place").value = String(now);
    $("place-text").textContent = `${clock(now)} of ${clock(Number($("place").max))}`;
    $("place").setAttribute("aria-valuetext", $("place-text").textContent);
  }
}
