/** Requests to the labelling server. A request outlives a lost connection: it is sent again until it is answered. */

const BACK_OFF_MS = [250, 500, 1000, 2000];
const PATIENCE_MS = 10_000; // A server that says nothing for so long is taken for lost; answers are safe to send twice.

const token = new URLSearchParams(location.search).get("token");

/** The server understood the request and refused it; the message is its own line. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server could not answer, and may be able to later. */
class Trouble extends Error {}

/** A random name. `crypto.randomUUID` is missing where a page is served over plain HTTP to another machine. */
export function randomName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Calls `listener(lost, reason)` whenever a request finds the connection lost (true), and when it is back (false). */
export function watchConnection(listener) {
  onConnection = listener;
}

let onConnection = () => {};
let lost = false;

function connection(nowLost, reason) {
  if (!nowLost && !lost) return; // Every failure is told: somebody may have answered since the one before.
  lost = nowLost;
  onConnection(lost, reason);
}

async function attempt(path, options) {
  const response = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  const reason = error ?? `The server answered with status ${response.status}`;
  // 5xx: the server is in trouble, which may pass as a lost connection does.
  throw response.status >= 500 ? new Trouble(reason) : new Refused(response.status, reason);
}

const authorization = token ? { Authorization: `Bearer ${token}` } : {};

/** Sends a request until it is answered, and reads the answer with `read`; throws only `Refused`. */
async function request(path, read, options = { headers: authorization }) {
  for (let failures = 0; ; failures++) {
    try {
      const result = await read(await attempt(path, options));
      connection(false);
      return result;
    } catch (error) {
      if (error instanceof Refused) {
        connection(false);
        throw error;
      }
      connection(true, error instanceof Trouble ? error.message : "Connection lost");
      await sleep(BACK_OFF_MS[Math.min(failures, BACK_OFF_MS.length - 1)]);
    }
  }
}

const json = (response) => response.json();

const message = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json", ...authorization },
  body: JSON.stringify(body),
});

const post = (path, body) => request(path, json, message(body));

export const getStatus = () => request("/api/status", json);

export const getPair = (who) => post("/api/pair", who);

/** Says that the tab is left, so that its pair is free again. The browser sends it after the page is gone. */
export function leave(tab) {
  fetch("/api/leave", { ...message({ tab }), keepalive: true }).catch(() => {});
}

/** The token is made once for each answer, so that one sent twice is stored once. */
export const postAnswer = (answer) => post("/api/answer", { ...answer, token: randomName() });

export const postUndo = (undo) => post("/api/undo", { ...undo, token: randomName() });

export const getHistory = (before) => request(`/api/history?limit=50${before ? `&before=${before}` : ""}`, json);

/** A clip's sheet of pictures. It is fetched, not named in an <img>, because the token travels in a header. */
export async function getSheet(url) {
  const blob = await request(url, (response) => response.blob());
  return createImageBitmap(blob).catch(() => {
    throw new Refused(0, "A clip's pictures could not be read.");
  });
}
