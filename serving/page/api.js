// The API: requests with the key of this tab, and its refusals as sentences.

const STORE = "voxface-key";
const LEADS = {
  NO_CONSENT: "A face needs the consent of the person it shows",
  QUOTA: "This key has had its share for today",
  CONCURRENCY: "This key has enough videos under way",
  OVERLOAD: "The service has too much to do",
  NOT_READY: "The video is not ready",
  400: "The service could not read the request",
  401: "This key is not known here, or was revoked",
  403: "This key may not do that",
  404: "It is not there any more",
  408: "Sending took too long",
  413: "That is too large for this service",
  415: "The service does not take this kind of file",
  422: "The service cannot use this",
  429: "The service has too much to do",
  500: "The service failed",
  503: "The service cannot answer now",
};
const TIMED = new Set([429, 503]);

export const key = {
  get: () => sessionStorage.getItem(STORE) ?? "",
  set: (value) => sessionStorage.setItem(STORE, value),
  forget: () => sessionStorage.removeItem(STORE),
  looksRight: (value) => /^[\x21-\x7e]{8,200}$/.test(value),
};

/** An answer that is none. `message` is a sentence for people, `wait` seconds until it is worth asking again. */
export class Refusal extends Error {
  constructor(status, code, message, wait) {
    super(message);
    Object.assign(this, { status, code, wait });
  }
}

/** The answer to a request, a Response; throws Refusal. */
export async function ask(method, path) {
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), {
      method,
      headers: { Authorization: `Bearer ${key.get()}` },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch {
    throw away();
  }
  if (!answer.ok) throw refusal(answer.status, await answer.text(), answer.headers.get("retry-after"));
  return answer;
}

export const read = async (path) => (await ask("GET", path)).json();

/** Post a form and return the JSON answered; `moved` hears the share sent. */
export function send(path, form, moved) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of how much is sent
    request.open("POST", new URL(path, document.baseURI));
    request.setRequestHeader("Authorization", `Bearer ${key.get()}`);
    request.upload.onprogress = (event) => event.lengthComputable && moved(event.loaded / event.total);
    request.onerror = () => reject(away("the connection broke while sending. The files may be too large, or it is away"));
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(refusal(request.status, request.responseText, request.getResponseHeader("retry-after")));
    };
    request.send(form);
  });
}

export function duration(seconds) {
  if (seconds < 90) return `${seconds} ${seconds === 1 ? "second" : "seconds"}`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes`;
  return `${Math.round(seconds / 3600)} hours`;
}

export const sentence = (text) => (/[.!?…]$/.test(text) ? text : `${text}.`);

function away(why = "nobody answers. It may be starting again, or the network is away") {
  return new Refusal(0, "NO_ANSWER", sentence(`The service cannot be reached: ${why}`), 5);
}

function refusal(status, body, retry) {
  let problem = {};
  try {
    problem = JSON.parse(body) ?? {};
  } catch {
    // something between here and the service answered
  }
  const code = typeof problem.code === "string" ? problem.code : `HTTP_${status}`;
  const lead = LEADS[code] ?? LEADS[status] ?? `The service answered ${status}`;
  const detail = typeof problem.detail === "string" && status !== 401 ? `: ${problem.detail.slice(0, 600)}` : "";
  const wait = /^\d+$/.test(retry ?? "") ? Number(retry) : null;
  const again = TIMED.has(status) && wait ? ` Try again in ${duration(wait)}.` : "";
  return new Refusal(status, code, sentence(lead + detail) + again, wait);
}
