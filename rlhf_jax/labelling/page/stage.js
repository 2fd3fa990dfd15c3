/** The stage: the question, the two clips and their controls, the answers, and lines that come and go. */

import { Player } from "./player.js";
import { say } from "./status.js";
import { ANSWERS, phaseTitle } from "./words.js";

const $ = (id) => document.getElementById(id);
const body = document.body;
const answerButtons = [...document.querySelectorAll("[data-answer]")];

export const player = new Player({ left: $("left"), right: $("right") }, showPlayback);

/** Whether nothing is shown or on its way. */
export const isIdle = () => ["connecting", "waiting", "over", "refused"].includes(body.dataset.state);

/** Whether both clips are drawn and an answer can be given. */
export const isAsking = () => body.dataset.state === "asking" || body.dataset.state === "changing";

/** Both clips are drawn: asks for an answer. `past` is the history's entry if an answer is being changed. */
export function ask(pair, past) {
  delete body.dataset.chosen;
  enter(past ? "changing" : "asking");
  body.dataset.pair = pair.id;
  body.removeAttribute("data-covered");
  $("keep").hidden = !past;
  say("eyebrow", past ? `Changing the answer of pair ${pair.id}` : `Pair ${pair.id}`);
  if (past) remark(`The answer so far: ${ANSWERS[past.answer]}.`);
  for (const button of answerButtons) button.ariaCurrent = button.dataset.answer === past?.answer ? "true" : null;
}

/** The clips of a pair are on their way; those before stay until then. */
export function load() {
  enter("loading");
  if (player.frames === 0) curtain("Fetching the clips…", "");
}

/** Shows which answer was chosen while it is sent. */
export function send(answer) {
  enter("sending");
  body.dataset.chosen = answer;
}

/** There is no pair: says why. */
export function wait(status) {
  empty("waiting", phaseTitle(status), status.message);
}

/** The run is over, and no answer is wanted any more. */
export function end(status) {
  empty("over", phaseTitle(status), status.message);
}

/** The server does not let this page in. */
export function refuse(reason) {
  empty("refused", "The server refused this page", reason);
}

function empty(state, title, text) {
  delete body.dataset.chosen;
  $("keep").hidden = true;
  say("eyebrow", "");
  if (player.frames > 0) player.clear();
  enter(state);
  curtain(title, text);
}

/** Covers the clips with words. */
function curtain(title, text) {
  body.setAttribute("data-covered", "");
  say("curtain-title", title);
  say("curtain-text", text);
}

/** `aria-disabled` and not `disabled`, which would take the focus away from who works by keyboard. */
function enter(state) {
  body.dataset.state = state;
  if (!isAsking()) delete body.dataset.pair;
  for (const button of answerButtons) button.setAttribute("aria-disabled", !isAsking());
  $("skip").setAttribute("aria-disabled", state !== "asking");
  $("undo").setAttribute("aria-disabled", !["asking", "waiting"].includes(state));
}

function showPlayback() {
  const { frame, frames, playing, speed } = player;
  body.dataset.playing = playing;
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  $("speed").value = speed;
  $("scrubber").max = Math.max(frames, 1);
  $("scrubber").value = frame + 1;
  $("scrubber").setAttribute("aria-valuetext", `${frame + 1} of ${frames}`);
  $("frame").textContent = frames > 0 ? `${frame + 1} / ${frames}` : "–";
}

/** The line about the answer just given. */
export const remark = (text) => say("sureness-line", text);

let noticeTimer = 0;

/** Says something that has happened, for some seconds. */
export function notice(text) {
  say("notice", text);
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => say("notice", ""), 7000);
}

let bannerTimer = 0;

/** Says that the connection is lost, until it is back. */
export function banner(lost, text) {
  clearTimeout(bannerTimer);
  body.toggleAttribute("data-lost", lost);
  say("banner", text);
  if (!lost) bannerTimer = setTimeout(() => say("banner", ""), 2500);
}
