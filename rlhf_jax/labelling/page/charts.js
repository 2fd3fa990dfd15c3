/** Small charts, made of SVG elements; colours and fonts are the style sheet's. */

import { percent, short } from "./words.js";

const WIDTH = 280;
const HEIGHT = 92;
const MOST_BARS = 60; // More would be too thin to be told apart.
const PLOT = { left: 40, right: 274, top: 8, bottom: 74 };

const FITTED = "Appears once the model has been fitted.";

/** @returns {(status: object) => void} redraws the charts that have changed. */
export function makeCharts(container) {
  const charts = [
    chart(container, "Predicted return", FITTED, (status) =>
      line(status.series.iteration, status.series.predicted_return),
    ),
    chart(container, "Labels learnt from", "Appears with the first iteration.", (status) =>
      line(status.series.iteration, status.series.labels, 0),
    ),
    chart(container, "How sure the model was", FITTED, bars),
  ];
  return (status) => charts.forEach((update) => update(status));
}

/** One titled chart; `plot` makes `{shapes, value, words, corners}` of a status, or null if there is nothing yet. */
function chart(container, title, empty, plot) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const value = document.createElement("b");
  const note = document.createElement("p");
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  caption.append(title, value);
  note.textContent = empty;
  figure.append(caption, note, picture);
  container.append(figure);
  let drawn = null;
  return (status) => {
    const plotted = plot(status);
    const key = JSON.stringify(plotted);
    if (key === drawn) return;
    drawn = key;
    note.hidden = plotted !== null;
    picture.toggleAttribute("hidden", plotted === null);
    value.textContent = plotted?.value ?? "";
    if (!plotted) return;
    picture.setAttribute("aria-label", `${title}: ${plotted.words}`);
    const shapes = plotted.shapes.map(([name, attributes]) => svg(name, attributes));
    picture.replaceChildren(...axes(plotted.corners), ...shapes);
  };
}

/** Values over iterations; `floor` is a value that the axis has to reach. */
function line(iterations, values, floor = Infinity) {
  const points = iterations.map((x, index) => [x, values[index]]).filter(([, y]) => Number.isFinite(y));
  if (points.length === 0) return null;
  const ys = points.map(([, y]) => y);
  const [low, high] = widened(Math.min(...ys, floor), Math.max(...ys));
  const [first, last] = [points[0], points.at(-1)];
  const x = scale(first[0], Math.max(last[0], first[0] + 1), PLOT.left, PLOT.right);
  const y = scale(low, high, PLOT.bottom, PLOT.top);
  const to = last[0] > first[0] ? String(last[0]) : ""; // One point has one end.
  const path = points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ");
  return {
    value: short(last[1]),
    words: `${short(last[1])} at iteration ${last[0]}; ${short(first[1])} at iteration ${first[0]}.`,
    corners: { top: short(high), bottom: short(low), from: String(first[0]), to },
    shapes: [
      ["polygon", { class: "area", points: `${x(first[0])},${PLOT.bottom} ${path} ${x(last[0])},${PLOT.bottom}` }],
      ["polyline", { class: "line", points: path }],
      ["circle", { class: "dot", cx: x(last[0]), cy: y(last[1]), r: 3 }],
    ],
  };
}

/** The newest answers as bars from 50 %: up where the model agreed, down where the answer surprised it. */
function bars(status) {
  const sureness = status.sureness.slice(-MOST_BARS);
  const known = sureness.filter((value) => value !== null);
  if (known.length === 0) return null;
  const step = Math.min((PLOT.right - PLOT.left) / sureness.length, 16);
  const y = scale(0, 1, PLOT.bottom, PLOT.top);
  const newest = known.at(-1);
  const agreed = known.filter((value) => value >= 0.5).length;
  const bar = (value, index) => {
    const left = PLOT.right - (sureness.length - index) * step;
    const height = Math.max(Math.abs(y(value) - y(0.5)), 1);
    const box = { x: left + step * 0.12, width: step * 0.76, y: Math.min(y(value), y(0.5)), height };
    return ["rect", { ...box, class: value < 0.5 ? "surprise" : "sure" }];
  };
  return {
    value: percent(newest),
    words: `${percent(newest)} for your newest answer; it agreed with ${agreed} of the ${known.length} newest.`,
    corners: { top: "100 %", bottom: "0 %", middle: "50 %", from: "older", to: "newest" },
    shapes: sureness.map((value, index) => (value === null ? null : bar(value, index))).filter(Boolean),
  };
}

function axes({ top, bottom, middle, from, to }) {
  const centre = (PLOT.top + PLOT.bottom) / 2;
  const rule = (y) => svg("line", { class: "axis", x1: PLOT.left, x2: PLOT.right, y1: y, y2: y });
  return [
    rule(middle ? centre : PLOT.bottom),
    label(top, PLOT.left - 6, PLOT.top + 4, "end"),
    label(bottom, PLOT.left - 6, PLOT.bottom + 3, "end"),
    label(middle ?? "", PLOT.left - 6, centre + 4, "end"),
    label(from, PLOT.left, HEIGHT - 4, "start"),
    label(to, PLOT.right, HEIGHT - 4, "end"),
  ];
}

function label(text, x, y, anchor) {
  const element = svg("text", { x, y, "text-anchor": anchor });
  element.textContent = text;
  return element;
}

const round = (value) => Math.round(value * 10) / 10;

const scale = (low, high, from, to) => (value) => round(from + ((value - low) / (high - low)) * (to - from));

/** A range of one value gets some room, so that it can be drawn. */
const widened = (low, high) => (low < high ? [low, high] : [low - 1, high + 1]);

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
