/** What is always visible: labels, the agent, time, and the charts. */

import { makeCharts } from "./charts.js";
import { clock, isOver, plural } from "./words.js";

const $ = (id) => document.getElementById(id);

const MODES = {
  asynchronous: "The agent goes on learning while you answer.",
  synchronous: "The agent waits for your answers.",
};

const drawCharts = makeCharts($("charts"));

let latest = null;
let latestAt = 0;

setInterval(tick, 1000);

/** Shows a status of the run. */
export function showStatus(status) {
  [latest, latestAt] = [status, performance.now()];
  const unseen = document.hidden && status.waiting > 0 ? `(${status.waiting}) ` : "";
  document.title = `${unseen}Which clip is better? – ${status.env}`;
  say("env", status.env);
  say("instruction", status.instruction && `Goal: ${status.instruction}`);
  showProgress(status);
  showDetails(status);
  drawCharts(status);
  tick();
}

function showProgress(status) {
  const { answered, budget, message } = status;
  const missing = isOver(status) ? 0 : status.initial_missing;
  say("counts", `${answered} / ${budget} labels`);
  $("bar").max = Math.max(budget, 1);
  $("bar").value = answered;
  say("message", message);
  say("initial", missing > 0 ? `${plural(missing, "initial label")} still missing.` : "");
}

function showDetails({ waiting, iteration, iterations, mode, repeats }) {
  say("waiting", String(waiting));
  say("iteration", `${iteration} / ${iterations}`);
  say("mode", mode);
  $("mode").title = MODES[mode] ?? "";
  const { shown, agreed } = repeats;
  say("repeats", shown > 0 ? `${agreed} of ${plural(shown, "repeated pair")} answered the same.` : "");
}

/** The run's clock goes on between two statuses, unless the run is over. */
function tick() {
  if (!latest) return;
  const since = isOver(latest) ? 0 : (performance.now() - latestAt) / 1000;
  say("time", clock(latest.seconds + since));
}

/** Sets a text; the same text is left alone, so that it is not read out again. */
export function say(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}
