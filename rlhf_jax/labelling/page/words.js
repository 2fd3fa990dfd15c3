/** What the page says in words. */

export const ANSWERS = {
  left: "Left is better",
  right: "Right is better",
  tie: "Equally good",
  cannot_tell: "Can’t tell",
  skip: "Skipped",
};

const PHASES = {
  starting: "The run is starting",
  initial: "The next clips are on their way",
  training: "Nothing to compare just now",
  waiting: "The next clips are on their way",
  finished: "The run has finished",
  stopped: "The run has stopped",
};

export const isOver = (status) => status.phase === "finished" || status.phase === "stopped";

export const phaseTitle = (status) => PHASES[status.phase] ?? "Nothing to compare just now";

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

export const percent = (probability) => `${Math.round(100 * probability)} %`;

/** How sure the model was of an answer; `probability` is its probability that the left clip is better. */
export function surenessLine(answer, probability) {
  if (answer === "skip") return "Skipped.";
  if (probability === null) return "The model had no opinion yet.";
  if (answer === "left") return `The model gave your choice ${percent(probability)}.`;
  if (answer === "right") return `The model gave your choice ${percent(1 - probability)}.`;
  const left = Math.round(100 * probability);
  return `The model saw it ${left} : ${100 - left}.`;
}

/** The model's view of a past answer, short. */
export function surenessWord({ answer, probability }) {
  if (probability === null) return "no opinion";
  if (answer === "left") return percent(probability);
  if (answer === "right") return percent(1 - probability);
  const left = Math.round(100 * probability);
  return `${left} : ${100 - left}`;
}

/** A number as short as a chart's corner needs it, with a true minus sign. */
export function short(value) {
  const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");
}

/** Seconds as m:ss, or h:mm:ss. */
export function clock(seconds) {
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  const minutes = seconds / 60;
  if (minutes < 60) return `${Math.floor(minutes)}:${two(seconds % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}`;
}
