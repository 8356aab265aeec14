// LabelSlider: learning curves of a task from different starts, and what each has with the chosen number of labels.
// All of it is computed here from recorded runs, with and without a kernel.

import { check, choice, clip, draw, make } from "./shared.mjs";

const WAYS = {
  rival: { name: "counting, no network", dash: "1 3", mark: (x, y) => draw("path", { d: `M${x - 4} ${y - 4}l8 8m0-8l-8 8`, fill: "none" }) },
  random: { name: "random start", dash: "none", mark: (x, y) => circle(x, y, "var(--paper)") },
  full: { name: "pre-trained, all weights", short: "pre-trained start", dash: "none", mark: (x, y) => circle(x, y) },
  adapter: { name: "pre-trained, adapters", short: "pre-trained start with adapters", dash: "7 4",
    mark: (x, y) => draw("rect", { x: x - 4, y: y - 4, width: 8, height: 8 }) },
  frozen: { name: "pre-trained, frozen", short: "frozen pre-trained start", dash: "2 4",
    mark: (x, y) => draw("path", { d: `M${x} ${y - 5}L${x + 5} ${y + 4}H${x - 5}Z` }) },
};
const TASKS = new Map([["sentiment", ["Sentiment", "accuracy"]], ["tags", ["Tags", "mean F1"]],
  ["entailment", ["Entailment", "accuracy"]], ["questions", ["Questions", "F1 over words"]]]);
const titleOf = (task) => TASKS.get(task)?.[0] ?? clip(task);
const HEIGHT = 310, LEFT = 36, RIGHT = 24, TOP = 54, BOTTOM = 46;

/** All the numbers of labels of the runs, from few to many. */
export const numbersOf = (runs) => [...new Set(runs.map((run) => run.labels))].sort((a, b) => a - b);

/** Mean, lowest and highest score over the seeds; null where there are no runs. */
export function summary(runs, task, way, labels) {
  const scores = runs.filter((run) => run.task === task && run.way === way && run.labels === labels).map((run) => run.score);
  if (!scores.length) return null;
  return { mean: scores.reduce((sum, score) => sum + score, 0) / scores.length, low: Math.min(...scores),
    high: Math.max(...scores), seeds: scores.length };
}

/** The first number, from the chosen one up, with which the random start's mean is at least this way's with `labels`,
 *  both as they are shown. The answer is {reached, below}: reached is null when none is enough, below is the last that
 *  is too few or null. */
export function needed(runs, task, way, labels) {
  const goal = summary(runs, task, way, labels);
  const tried = numbersOf(runs).filter((n) => n >= labels && summary(runs, task, "random", n));
  if (!goal || !tried.length) return null;
  const at = tried.findIndex((n) => shown(summary(runs, task, "random", n).mean) >= shown(goal.mean));
  return { reached: at < 0 ? null : tried[at], below: at === 0 ? null : tried.at(at < 0 ? -1 : at - 1) };
}

/** Where a number of labels stands on an axis of so many pixels, in powers of two. */
export const across = (labels, numbers, from, to) => numbers.length < 2 ? (from + to) / 2
  : from + ((to - from) * Math.log2(labels / numbers[0])) / Math.log2(numbers.at(-1) / numbers[0]);

/** The lowest score on the axis: 0, or just below a task's baseline where there is one. */
export function lowest(runs, task, baseline) {
  if (!baseline) return 0;
  const scores = runs.filter((run) => run.task === task).map((run) => run.score);
  return Math.min(0.9, Math.floor(10 * Math.min(baseline.score, ...scores) + 1e-9) / 10);
}

const count = (n) => n.toLocaleString("en-US");
const labelled = (n) => `${count(n)} ${n === 1 ? "label" : "labels"}`;
const shown = (score) => score.toFixed(3);

/** What the chosen number means, in words. */
export function told(runs, task, ways, labels) {
  const rival = ways.includes("rival") && summary(runs, task, "rival", labels);
  return compared(runs, task, ways, labels) + (rival ? ` Counting, without a network, has ${shown(rival.mean)}.` : "");
}

function compared(runs, task, ways, labels) {
  if (!ways.length) return "No start is shown: choose one.";
  const random = summary(runs, task, "random", labels);
  const way = Object.keys(WAYS).find((one) => WAYS[one].short && ways.includes(one) && summary(runs, task, one, labels));
  if (!way) {
    return random && ways.includes("random") ? `With ${labelled(labels)}, the random start has ${shown(random.mean)}.`
      : "No start that is shown has runs with that number.";
  }
  const score = shown(summary(runs, task, way, labels).mean);
  const begin = `With ${labelled(labels)}, the ${WAYS[way].short} has ${score}`;
  const found = needed(runs, task, way, labels);
  if (!random || !found) return `${begin}.`;
  const { low, high, seeds } = summary(runs, task, way, labels);
  if (seeds > 1 && low <= random.high && random.low <= high) {
    return `${begin}, the random start ${shown(random.mean)}. No clear difference: the ranges of the seeds overlap.`;
  }
  const more = found.reached === labels ? `is ${shown(random.mean) === score ? "as good" : "better"} already.`
    : found.reached === null ? `does not get there with ${count(found.below)}; more were not tried.`
      : `needs ${labelled(found.reached)} for that; ${count(found.below)} ${found.below === 1 ? "is" : "are"} too few.`;
  return `${begin}, the random start ${shown(random.mean)}. The random start ${more}`;
}

const circle = (x, y, fill = "currentColor") => draw("circle", { cx: x, cy: y, r: 4, fill });
const curve = (way, ...children) => draw("g", { class: `ss-curve ss-way-${WAYS[way].short ? "pretrained" : "outside"}` }, ...children);

/** The chart of one task, `width` pixels wide. */
function chart({ runs, task, ways, labels, baseline, best, width }) {
  const numbers = numbersOf(runs), bottom = lowest(runs, task, baseline);
  const x = (n) => across(n, numbers, LEFT + 16, width - RIGHT);
  const y = (score) => TOP + ((1 - score) / (1 - bottom)) * (HEIGHT - TOP - BOTTOM);
  const text = (at, height, anchor, words) => draw("text", { x: at, y: height, "text-anchor": anchor }, words);
  const line = (kind, x1, y1, x2, y2) => draw("line", { class: kind, x1, y1, x2, y2 });
  const [end, floor, step] = [width - RIGHT + 8, HEIGHT - BOTTOM, bottom < 0.4 ? 2 : 1];
  const parts = [text(0, 12, "start", `score (${TASKS.get(task)?.[1] ?? "0 to 1"})`),
    text((LEFT + end) / 2, HEIGHT - 6, "middle", "number of labels (log scale)")];
  for (let tenth = 10; tenth >= Math.round(bottom * 10); tenth -= step) {
    parts.push(line("ss-grid", LEFT, y(tenth / 10), end, y(tenth / 10)), text(LEFT - 8, y(tenth / 10) + 4, "end", (tenth / 10).toFixed(1)));
  }
  for (const n of numbers) parts.push(line("ss-grid", x(n), floor, x(n), floor + 5), text(x(n), floor + 19, "middle", count(n)));
  const side = numbers.length < 2 ? "middle" : labels === numbers[0] ? "start" : labels === numbers.at(-1) ? "end" : "middle";
  parts.push(line("ss-chosen", x(labels), TOP - 16, x(labels), floor), text(x(labels), TOP - 22, side, labelled(labels)));
  if (best !== undefined) parts.push(line("ss-best", LEFT, y(best), end, y(best)));
  if (baseline) parts.push(line("ss-baseline", LEFT, y(baseline.score), end, y(baseline.score)));
  ways.forEach((way, i) => {
    const aside = (n) => x(n) + 5 * (i - (ways.length - 1) / 2); // so that no whisker hides another
    const points = numbers.map((n) => [aside(n), summary(runs, task, way, n)]).filter(([, found]) => found);
    parts.push(curve(way,
      draw("polyline", { points: points.map(([at, { mean }]) => `${at},${y(mean)}`).join(" "), "stroke-dasharray": WAYS[way].dash }),
      ...points.map(([at, { low, high }]) => draw("path", { d: `M${at - 6} ${y(low)}h12m-6 0V${y(high)}m-6 0h12` })),
      ...points.map(([at, { mean }]) => WAYS[way].mark(at, y(mean)))));
  });
  if (best !== undefined) parts.push(text(LEFT + 2, y(best) - 6, "start", "best possible"));
  if (baseline) parts.push(text(end, y(baseline.score) + (baseline.score > 0.7 ? 16 : -6), "end", clip(baseline.label, 30)));
  return draw("svg", { role: "img", viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT,
    "aria-label": `${titleOf(task)}: score by number of labels, a curve for each start. ` +
      `The table says the scores with ${labelled(labels)}.` }, ...parts);
}

let views = 0;

function render({ model, el }) {
  const view = ++views;
  const runs = model.get("runs"), numbers = numbersOf(runs);
  const set = (name, value) => {
    model.set(name, value);
    try { model.save_changes(); } catch { /* a page has nowhere to save to */ }
  };
  const tasks = choice("Task", `ss-labels-${view}`,
    Object.fromEntries(runs.map(({ task }) => [task, titleOf(task)])), (task) => set("task", task));
  const boxes = make("fieldset", { class: "ss-ways" }, make("legend", { class: "ss-small" }, "Where learning starts, and what learns"));
  for (const way of Object.keys(WAYS).filter((one) => runs.some((run) => run.way === one))) {
    const input = make("input", { type: "checkbox", value: way, onchange: () => set("ways",
      [...boxes.querySelectorAll("input:checked")].map(({ value }) => value)) });
    const key = draw("svg", { width: 32, height: 14, "aria-hidden": "true" },
      curve(way, draw("line", { x1: 0, y1: 7, x2: 32, y2: 7, "stroke-dasharray": WAYS[way].dash }), WAYS[way].mark(16, 7)));
    boxes.append(make("label", {}, input, key, WAYS[way].name));
  }
  const plot = make("div", { class: "ss-plot" });
  const slider = make("input", { type: "range", "aria-label": "Number of labels", min: 0, max: numbers.length - 1, step: 1,
    oninput: () => set("labels", numbers[slider.value]) });
  const sum = make("p", { class: "ss-sum", "aria-live": "polite" });
  const body = make("tbody"), caption = make("caption");
  const heads = ["Start", "Mean", "Lowest–highest", "Random start needs"].map((name) => make("th", { scope: "col" }, name));
  const table = make("table", { class: "ss-scores" }, caption, make("thead", {}, make("tr", {}, ...heads)), body);
  const root = make("section", { class: "selfsup ss-labels", "aria-label": "Labels and starts" },
    make("div", { class: "ss-row" }, tasks), boxes, plot, slider, sum, table);
  root.dataset.lmSuppressShortcuts = "true"; // in JupyterLab, keys typed here are not commands
  el.replaceChildren(root);

  function row(task, way, labels) {
    const found = summary(runs, task, way, labels), need = WAYS[way].short ? needed(runs, task, way, labels) : null;
    const needs = !need ? "–" : need.reached === labels ? "no more" : need.reached === null ? `over ${count(need.below)}`
      : need.below === null ? `at most ${count(need.reached)}` : count(need.reached); // where fewer were not tried
    return make("tr", {}, make("th", { scope: "row" }, WAYS[way].name),
      ...[found ? shown(found.mean) : "–", found ? `${shown(found.low)}–${shown(found.high)}` : "–", needs].map((cell) => make("td", {}, cell)));
  }

  function show() {
    const [task, labels] = [model.get("task"), model.get("labels")];
    const [baseline, best] = ["baselines", "best"].map((name) => new Map(Object.entries(model.get(name))).get(task));
    const ways = Object.keys(WAYS).filter((way) => model.get("ways").includes(way));
    check(tasks, task);
    for (const input of boxes.querySelectorAll("input")) input.checked = ways.includes(input.value);
    slider.value = numbers.indexOf(labels);
    slider.setAttribute("aria-valuetext", labelled(labels));
    plot.replaceChildren(chart({ runs, task, ways, labels, baseline, best,
      width: Math.max(260, Math.floor(plot.clientWidth)) }));
    const words = told(runs, task, ways, labels);
    if (sum.textContent !== words) sum.textContent = words; // a change of width is nothing to be read aloud
    caption.textContent = `${titleOf(task)} with ${labelled(labels)}, over the seeds of each start; the whiskers are the lowest and the highest`;
    body.replaceChildren(...ways.map((way) => row(task, way, labels)));
  }

  const NAMES = ["task", "labels", "ways", "baselines", "best"].map((name) => `change:${name}`);
  for (const name of NAMES) model.on(name, show);
  const observer = new ResizeObserver(show);
  observer.observe(plot);
  show();
  return () => {
    observer.disconnect();
    for (const name of NAMES) model.off(name, show);
  };
}

export default { render };
