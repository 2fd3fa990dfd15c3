/** The answers so far, in a dialog; one of them can be chosen to be changed. */

import { getHistory, Refused } from "./api.js";
import { ANSWERS, surenessWord } from "./words.js";

const $ = (id) => document.getElementById(id);
const dialog = $("history");
const list = $("history-list");

let onChoose = () => {};
let oldest = null; // The answer that older ones come before.
let asked = 0; // Counts requests, so that of two at a time, as after a double click, only the last is listed.

/** Calls `choose(entry)` when an answer is chosen; the dialog is closed then. */
export function makeHistory(choose) {
  onChoose = choose;
  $("history-older").addEventListener("click", more);
  $("history-close").addEventListener("click", () => dialog.close());
  // A click on the backdrop has the dialog itself as its target: its contents fill it without a gap.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

export const isHistoryOpen = () => dialog.open;

export function openHistory() {
  oldest = null;
  list.replaceChildren();
  dialog.showModal();
  return more();
}

async function more() {
  const mine = ++asked;
  hint("Fetching…");
  try {
    const reply = await getHistory(oldest);
    if (mine !== asked) return;
    list.append(...reply.answers.map(row));
    oldest = reply.answers.at(-1)?.id ?? oldest;
    $("history-older").hidden = !reply.more;
    hint(list.children.length > 0 ? "Choose an answer to see its clips again and to change it." : "No answers yet.");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    hint(error.message);
  }
}

function hint(text) {
  $("history-hint").textContent = text;
}

function row(entry) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.append(
    cell("row-pair", `Pair ${entry.pair}`),
    cell("row-answer", ANSWERS[entry.answer] ?? entry.answer),
    cell("row-model", surenessWord(entry), "How sure the model was"),
    cell("row-who", entry.labeller),
    cell("row-time", when(entry.answered)),
  );
  button.dataset.pair = entry.pair;
  button.addEventListener("click", () => {
    dialog.close();
    onChoose(entry);
  });
  item.append(button);
  return item;
}

function cell(name, text, title = "") {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  element.title = title;
  return element;
}

/** The time of day; the date too if it was not today. */
function when(seconds) {
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}
