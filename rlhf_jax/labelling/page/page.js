/** Entry of the labelling page: asks the server for pairs, shows them, and sends the answers. */

import * as api from "./api.js";
import { isHistoryOpen, makeHistory, openHistory } from "./history.js";
import { listenToKeys, releaseFocusAfterPointer } from "./keys.js";
import * as stage from "./stage.js";
import { showStatus } from "./status.js";
import { browserMemory, tabMemory } from "./storage.js";
import { isOver, surenessLine } from "./words.js";

const FLASH_MS = 220; // The choice is seen for so long; it also keeps a double press from answering the next pair.
const POLL_MS = { hidden: 5000, without: 300, with: 1000 };
const TICK_MS = 50;

const $ = (id) => document.getElementById(id);
const { player } = stage;

const tab = tabMemory.get("tab") ?? api.randomName();

let status = null;
let open = null; // The pair that this tab was given and has not answered.
let openClips = null; // Its clips; they are kept while a past answer is looked at.
let past = null; // The history's entry whose answer is being changed.
let busy = false; // An answer, or an undo, is being sent.
let hurry = false; // The server is to be asked at once.
let turn = 0; // Counts what has been shown, so that a reply overtaken by something newer is dropped.

/** Who gives no name has one of their own all the same: an undo takes back the newest answer under a name. */
const guest = browserMemory.get("guest") ?? `guest-${api.randomName().slice(0, 4)}`;

/** The name as the server takes it: what cannot be seen is left out. */
const labeller = () => $("labeller").value.replace(/[\p{C}\p{Z}]+/gu, " ").trim() || guest;

const who = () => ({ labeller: labeller(), tab });

function update(newStatus) {
  if (status && status.run !== newStatus.run) {
    tabMemory.set("notice", "Another run has started; this page now shows it.");
    location.reload();
  }
  if (!status) stage.remark(newStatus.legend);
  status = newStatus;
  showStatus(status);
}

/** Shows the answer being changed, else the open pair, else why there is none. */
async function show() {
  const mine = ++turn;
  const pair = past ? { ...past, id: past.pair } : open;
  if (!pair) return isOver(status) ? stage.end(status) : stage.wait(status);
  stage.load();
  const clips = await load(pair);
  if (mine !== turn) return;
  if (!past) openClips = clips;
  player.load(clips, status.fps);
  stage.ask(pair, past);
}

async function load(pair) {
  if (openClips?.pair.left === pair.left && openClips.pair.right === pair.right) return openClips;
  const [left, right] = await Promise.all([api.getSheet(pair.left), api.getSheet(pair.right)]);
  return { pair, left, right };
}

/** Sends an answer or an undo, and goes on with the reply's pair; if the server refuses, with the pair it then has. */
async function act(shown, request) {
  busy = true;
  turn++;
  stage.send(shown);
  try {
    await proceed(request);
  } catch (error) {
    await recover(error);
  } finally {
    busy = false;
  }
}

async function proceed(request) {
  const [reply] = await Promise.all([request(), api.sleep(FLASH_MS)]);
  past = null;
  open = reply.pair;
  update(reply.status);
  await show();
}

async function recover(error) {
  if (!(error instanceof api.Refused)) throw error;
  stage.notice(error.message);
  await proceed(() => api.getPair(who())).catch(giveUp);
}

function giveUp(error) {
  if (!(error instanceof api.Refused)) throw error;
  [open, past] = [null, null];
  turn++;
  stage.refuse(error.message);
}

function answer(choice) {
  const change = past !== null;
  if (busy || !stage.isAsking() || (change && choice === "skip")) return;
  const { id, swapped } = change ? { id: past.pair, swapped: past.swapped } : open;
  return act(choice, async () => {
    const reply = await api.postAnswer({ run: status.run, pair: id, answer: choice, swapped, change, ...who() });
    stage.remark(surenessLine(choice, reply.probability));
    return reply;
  });
}

function undo() {
  if (busy || !status || past || isOver(status)) return;
  return act("undo", async () => {
    const reply = await api.postUndo({ run: status.run, ...who() });
    if (reply.pair) stage.remark("Your last answer was taken back.");
    else stage.notice("There is nothing to undo.");
    return { ...reply, pair: reply.pair ?? open };
  });
}

function change(entry) {
  if (busy) return;
  past = entry;
  return show().catch(async (error) => {
    past = null;
    await recover(error);
  });
}

function keep() {
  if (!past || busy) return;
  past = null;
  stage.remark("The answer stays as it was.");
  return show().catch(recover);
}

/**
 * Asks the server once. Asking for a pair also says that this tab is still looking at the one it has; a hidden tab does
 * not look, and takes no pair from those who do.
 */
async function refresh() {
  const mine = turn;
  const wanted = !document.hidden && !past && !busy && !(status && isOver(status));
  const reply = wanted ? await api.getPair(who()) : { pair: open, status: await api.getStatus() };
  update(reply.status);
  if (mine !== turn || busy || past) return;
  const before = open;
  open = isOver(status) ? null : reply.pair;
  if (!open || stage.isIdle() || !isSame(open, before)) await show();
}

const isSame = (pair, other) => pair.id === other?.id && pair.swapped === other.swapped;

/** Waits until the server is to be asked again: sooner once the pair is answered or the page is looked at. */
async function rest() {
  const start = performance.now();
  const due = () => (document.hidden ? POLL_MS.hidden : open || past || busy ? POLL_MS.with : POLL_MS.without);
  do await api.sleep(TICK_MS);
  while (!hurry && performance.now() - start < due());
  hurry = false;
}

async function poll() {
  for (;;) {
    try {
      await refresh();
    } catch (error) {
      giveUp(error);
      if (error.status === 401 || error.status === 403) return; // The address is wrong, and stays so.
      await api.sleep(POLL_MS.with);
    }
    await rest();
  }
}

function onConnection(lost, reason) {
  if (!lost) return stage.banner(false, "Connected again.");
  if (status && isOver(status)) return stage.banner(true, "The run is over, and its server no longer answers.");
  stage.banner(true, `${reason}; trying again…${busy ? " Your answer is kept." : ""}`);
}

function listen() {
  const click = (id, action) => $(id).addEventListener("click", action);
  for (const button of document.querySelectorAll("[data-answer]"))
    button.addEventListener("click", () => answer(button.dataset.answer));
  click("undo", undo);
  click("skip", () => answer("skip"));
  click("keep", keep);
  click("history-open", openHistory);
  click("play", () => player.toggle());
  click("back", () => player.seek(player.frame - 1));
  click("forward", () => player.seek(player.frame + 1));
  for (const side of ["left", "right"]) click(side, () => player.toggle());
  $("scrubber").addEventListener("input", ({ target }) => player.seek(Number(target.value) - 1));
  $("speed").addEventListener("change", ({ target }) => player.setSpeed(Number(target.value)));
  const field = $("labeller");
  field.value = browserMemory.get("labeller") ?? "";
  field.placeholder = guest;
  browserMemory.set("guest", guest);
  field.addEventListener("input", () => browserMemory.set("labeller", field.value));
  field.addEventListener("keydown", ({ key }) => (key === "Enter" || key === "Escape") && field.blur());
  addEventListener("pagehide", () => api.leave(tab));
  addEventListener("pageshow", ({ persisted }) => (hurry ||= persisted)); // Back from the history, without its pair.
}

const ACTIONS = {
  ArrowLeft: () => answer("left"),
  ArrowRight: () => answer("right"),
  ArrowUp: () => answer("tie"),
  ArrowDown: () => answer("cannot_tell"),
  s: () => answer("skip"),
  u: undo,
  Undo: undo,
  Escape: keep,
  h: openHistory,
  " ": () => player.toggle(),
  ",": () => player.seek(player.frame - 1),
  ".": () => player.seek(player.frame + 1),
  "-": () => player.faster(-1),
  "+": () => player.faster(1),
  "=": () => player.faster(1),
  "[": () => player.faster(-1),
  "]": () => player.faster(1),
};

makeHistory(change);
releaseFocusAfterPointer();
listenToKeys(ACTIONS, new Set([",", "."]), isHistoryOpen);
listen();
api.watchConnection(onConnection);
tabMemory.set("tab", tab);
stage.notice(tabMemory.take("notice") ?? "");
poll();
