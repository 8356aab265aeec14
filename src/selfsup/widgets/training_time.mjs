// TrainingTime's user interface: one hidden word, and what a model says of it at each step of its training.
// In a notebook the kernel answers; on a page of the site, the engine in the browser, which fetches a step's weights
// when they are first asked for.

import {
  ROOT, SILENT_KERNEL, clip, copyLink, draw, engine, fillWord, fitsLink, key, linkFollower, make, rough, speech, waiter, wordCard,
} from "./shared.mjs";

const QUESTION = ["sentence", "position", "step", "top"];
const ANSWER = ["words", "predictions", "truth", "note"];
const BEAT = 500, REST = 150; // ms from step to step when playing, and at one step before its weights are fetched
const HEIGHT = 236, LEFT = 52, RIGHT = 24, TOP = 34, BOTTOM = 46; // the slider's ends stand at LEFT and RIGHT too, above it
const polygon = (points) => (x, y) => draw("polygon", { fill: "currentColor",
  points: points.map(([dx, dy]) => `${x + dx},${y + dy}`).join(" ") });
const STYLES = [ // a dash, a mark and how much of the model's colour, for one curve each
  ["none", (x, y) => draw("circle", { cx: x, cy: y, r: 4, fill: "currentColor" }), 100],
  ["8 4", polygon([[-4, -4], [4, -4], [4, 4], [-4, 4]]), 55],
  ["2 5", polygon([[0, -5], [5, 4], [-5, 4]]), 80],
  ["10 4 2 4", polygon([[0, -6], [5, 0], [0, 6], [-5, 0]]), 40],
  ["14 5", polygon([[-5, -4], [5, -4], [0, 5]]), 100],
  ["4 3", (x, y) => draw("path", { d: `M${x - 4} ${y - 4}l8 8m0-8l-8 8` }), 60],
];

export function writeLink(anchor, { sentence, position, step }) {
  return `#${new URLSearchParams({ w: anchor, s: sentence, p: position, t: step })}`;
}

/** The question in a fragment; null when it is not for this widget; throws when it cannot be read. */
export function readLink(fragment, anchor, steps) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (fields.get("w") !== anchor) return null;
  const [sentence, position, step] = ["s", "p", "t"].map((name) => fields.get(name) ?? "");
  const known = /^\d{1,4}$/.test(position) && /^\d+$/.test(step) && steps.includes(Number(step));
  if (!known || !fitsLink(sentence)) {
    throw new Error("The link's state could not be read, so the page shows its own.");
  }
  return { sentence, position: Number(position), step: Number(step) };
}

const count = (n) => n.toLocaleString("en-US");

/** A step in words, with how many words the model had read by then where that is known. */
export function stepName(step, read) {
  if (read === undefined) return `step ${count(step)}`;
  const thousands = read >= 1e3 ? `${Math.round(read / 1e3)} thousand` : read;
  return `step ${count(step)}, ${read >= 1e5 ? `${(read / 1e6).toFixed(1)} million` : thousands} words`;
}

/** `top` + 3 rows: the truth's likeliest, which stay in their places at every step, the real one, then the model's. */
export function rowsOf({ real, top: likely }, truth, top) {
  const exactly = new Map(truth?.top ?? []);
  const fixed = (truth?.top ?? []).filter(([, q]) => q > 0).slice(0, top).map(([token]) => token);
  if (real !== null && !fixed.includes(real)) fixed.push(real);
  const others = likely.map(([token]) => token).filter((token) => !fixed.includes(token));
  const chances = new Map(likely), shown = [...fixed, ...others].slice(0, top + 3);
  const rows = shown.map((token) => ({ token, p: chances.get(token), q: exactly.get(token) }));
  while (rows.length < top + 3) rows.push({ token: "", p: 0, q: truth ? 0 : undefined });
  return rows;
}

/** Which steps are named on an axis of so many pixels: as many as fit, the last one always. */
export function namedSteps(steps, width) {
  const apart = width / Math.max(1, steps.length - 1), last = steps.length - 1, named = [];
  const half = (i) => 4 * count(steps[i]).length + 3;
  const fit = (i, j) => i === undefined || (j - i) * apart >= half(i) + half(j);
  for (let i = 0; i < last; i++) if (fit(named.at(-1), i) && fit(i, last)) named.push(i);
  return [...named, last];
}

const curve = (i, ...children) => draw("g", { class: "ss-curve",
  style: `color: color-mix(in srgb, var(--model) ${STYLES[i][2]}%, var(--ink))` }, ...children);

/** The abilities over the steps, evenly spaced, with a line at the current one. */
function chart(curves, steps, now, width) {
  const x = (i) => LEFT + (steps.length < 2 ? 0 : (i / (steps.length - 1)) * (width - LEFT - RIGHT));
  const y = (score) => TOP + (1 - score) * (HEIGHT - TOP - BOTTOM);
  const text = (at, height, anchor, words) => draw("text", { x: at, y: height, "text-anchor": anchor }, words);
  const line = (kind, x1, y1, x2, y2) => draw("line", { class: kind, x1, y1, x2, y2 });
  const parts = [text(0, 12, "start", "score"),
    text((LEFT + width - RIGHT) / 2, HEIGHT - 8, "middle", "training step")];
  for (const score of [0, 0.25, 0.5, 0.75, 1]) {
    parts.push(line("ss-grid", LEFT - 10, y(score), width - RIGHT, y(score)),
      text(LEFT - 16, y(score) + 4, "end", score.toFixed(2)));
  }
  for (const i of namedSteps(steps, width - LEFT - RIGHT)) {
    parts.push(text(x(i), HEIGHT - 27, "middle", count(steps[i])));
  }
  const side = now < steps.length / 4 ? "start" : now > (3 * steps.length) / 4 ? "end" : "middle";
  parts.push(line("ss-chosen", x(now), TOP - 10, x(now), y(0)),
    text(x(now), TOP - 16, side, `step ${count(steps[now])}`));
  curves.forEach(({ values, best }, i) => {
    const known = values.map((value, at) => [at, value]).filter(([, value]) => value !== null);
    const begins = ([at], k) => !k || known[k - 1][0] !== at - 1; // after a step without a score
    const path = known.map((one, k) => `${begins(one, k) ? "M" : "L"}${x(one[0])} ${y(one[1])}h0`).join("");
    const marks = known.filter(([at]) => at === now || (at + 2 * i) % 5 === 2)
      .map(([at, value]) => STYLES[i][1](x(at), y(value)));
    if (best !== null) parts.push(line("ss-ceiling", width - RIGHT + 2, y(best), width, y(best)));
    parts.push(curve(i, draw("path", { d: path, "stroke-dasharray": STYLES[i][0] }), ...marks));
  });
  return draw("svg", { role: "img", viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT,
    "aria-label": "Scores by training step, a curve for each ability. The table says those at the chosen step." },
  ...parts);
}

/** The scores at one step: {table, show(number of the step, its name)}. */
function scoreTable(curves) {
  const body = make("tbody"), caption = make("caption", { class: "ss-for-readers" });
  const heads = ["Ability", "Score", "Best possible"].map((name) => make("th", { scope: "col" }, name));
  heads[2].prepend(draw("svg", { width: 22, height: 10, "aria-hidden": "true" },
    draw("line", { class: "ss-ceiling", x1: 0, y1: 5, x2: 22, y2: 5 })));
  const cell = (kind, score) => make("td", { class: `ss-${kind}-text` }, score?.toFixed(2) ?? "–");
  const show = (now, step) => {
    caption.textContent = `At ${step}`;
    body.replaceChildren(...curves.map(({ name, values, best }, i) => {
      const swatch = draw("svg", { width: 36, height: 14, "aria-hidden": "true" },
        curve(i, draw("path", { d: "M0 7h36", "stroke-dasharray": STYLES[i][0] }), STYLES[i][1](18, 7)));
      const head = make("th", { scope: "row" }, swatch, name);
      return make("tr", {}, head, cell("model", values[now]), cell("truth", best));
    }));
  };
  const table = make("table", { class: "ss-scores", hidden: !curves.length }, caption,
    make("thead", {}, make("tr", {}, ...heads)), body);
  return { table, show };
}

/** Fills the list of words; touched, one is chosen by its place. The boxes that are there stay, and so does the focus. */
function showWords(boxes, words, position, choose) {
  while (boxes.children.length > words.length) boxes.lastChild.remove();
  words.forEach((word, i) => {
    if (!boxes.children[i]) {
      boxes.append(make("li", {}, make("button", { type: "button", onclick: () => choose(i) })));
    }
    const box = boxes.children[i].firstChild, hidden = i === position || word.given;
    box.className = `ss-word${hidden ? " ss-touched" : ""}${/^\p{P}$/u.test(word.text) ? " ss-mark" : ""}`;
    box.setAttribute("aria-pressed", String(hidden));
    box.setAttribute("aria-label", clip(word.text, 40) + (hidden ? ", hidden by [MASK]" : ""));
    const masks = word.pieces.map(() => "[MASK]").join(" ");
    fillWord(box, word.text, hidden ? masks : word.text, hidden && !word.given ? clip(word.text, 48) : "", hidden);
  });
}

let views = 0;

function render({ model, el }) {
  const view = ++views, onPage = ROOT !== undefined;
  const FIXED = ["steps", "read", "curves", "examples", "run"];
  const [steps, read, curves, examples, run] = FIXED.map((name) => model.get(name));
  const ask = onPage ? engine() : null;
  const question = () => Object.fromEntries(QUESTION.map((name) => [name, model.get(name)]));
  const pending = () => QUESTION.some((name) => model.get("answer_to")[name] !== model.get(name));
  const place = () => steps.indexOf(model.get("step"));
  const initial = question(), here = new Set(); // the steps whose weights are fetched
  let asked = 0, failed = "", slid = false, playing, patience, typing, speaking, gone = false;

  // The document.
  const button = (label, onclick, traits) => make("button", { type: "button", onclick, ...traits }, label);
  const field = make("input", { type: "text", dir: "auto", id: `ss-own-${view}`, maxlength: 10000, autocomplete: "off",
    autocapitalize: "off", spellcheck: "false", placeholder: "type a sentence", oninput: () => {
      if (playing) stop(); // a beat would put the old sentence back
      clearTimeout(typing);
      typing = setTimeout(() => type(field.value), 150);
    } });
  const ready = make("select", { id: `ss-ready-${view}`, onchange: () => {
    const [sentence, position] = examples[ready.value];
    set({ sentence, position });
  } }, make("option", { value: "", hidden: true }, "your own"),
  ...examples.map(([sentence], i) => make("option", { value: i }, clip(sentence, 90))));
  const labelled = (label, input) => make("div", { class: "ss-own" },
    make("label", { for: input.id, class: "ss-small" }, label), input);
  const buttons = make("div", { class: "ss-buttons" }, button("Reset", () => { stop(); set(initial); }));
  const copy = () => copyLink(writeLink(model.get("anchor"), question()), [model.get("sentence")], say);
  if (onPage) buttons.append(button("Copy link", copy));
  const words = make("ul", { class: "ss-words", dir: "auto", "aria-label": "The sentence: touch the word to hide" });
  const note = make("p", { class: "ss-note", role: "status", hidden: true });
  const again = button("Try again", () => { slider.focus(); askEngine(); }, { hidden: true });
  const truthKey = key("truth", "exact truth");
  const cards = make("div", { class: "ss-cards" });
  const plot = make("div", { class: "ss-plot", hidden: !curves.length });
  const slider = make("input", { type: "range", "aria-label": "Training step", min: 0, max: steps.length - 1, step: 1,
    oninput: () => {
      stop();
      slid = true;
      set({ step: steps[slider.value] });
    } });
  const player = button("Play", () => (playing ? stop() : play()), { class: "ss-play" });
  const at = make("b", { class: "ss-at" }), status = make("span", { class: "ss-small", role: "status" });
  const wait = waiter(cards, status);
  const scores = scoreTable(curves);
  const spoken = make("p", { class: "ss-for-readers", "aria-live": "polite" });
  const root = make("section", { class: "selfsup ss-training", "aria-label": "A model at each step of its training" },
    make("div", { class: "ss-row ss-last" }, ...(examples.length ? [labelled("A sentence", ready)] : []),
      labelled("Your own sentence", field), buttons),
    words, note,
    make("div", { class: "ss-row ss-legend" }, key("seen", "x′ what the model sees"),
      key("hidden", "x″ what is hidden from it"), key("model", "the model"), truthKey),
    cards, slider, make("div", { class: "ss-row ss-time" }, player, make("div", {}, at, status), again), plot,
    scores.table, spoken);
  root.dataset.lmSuppressShortcuts = "true"; // in JupyterLab, keys typed here are not commands
  el.replaceChildren(root);

  // Asking.
  function set(changes) {
    if ("sentence" in changes) {
      clearTimeout(typing);
      typing = null;
    }
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    try { model.save_changes(); } catch { /* a page has nowhere to save to */ }
    if (onPage || !pending()) return;
    clearTimeout(patience);
    patience = setTimeout(() => say(SILENT_KERNEL), 5000);
  }

  async function askEngine() {
    const number = ++asked, now = question(), { sentence, position, step, top } = now;
    failed = "";
    showState();
    await new Promise((done) => setTimeout(done, here.has(step) ? 0 : REST)); // a slider passes many steps
    if (number !== asked || gone || !pending()) return;
    try {
      const found = await ask(run, { sentence, top, step, touched: [{ position, kind: "mask" }] });
      here.add(step);
      if (number !== asked || gone) return;
      for (const name of ANSWER) model.set(name, found[name]);
      model.set("answer_to", now);
      model.set("answered", model.get("answered") + 1);
      try { model.save_changes(); } catch { /* as above */ }
      if (slid) for (const by of [1, -1]) fetchAhead(steps[steps.indexOf(step) + by]);
    } catch (error) {
      if (number !== asked || gone) return;
      failed = `Step ${count(step)} cannot be shown: ${error.message}.`;
      stop();
      showState();
    }
  }

  function fetchAhead(step) {
    if (step !== undefined && !here.has(step)) ask(run, { step }).then(() => here.add(step), () => {});
  }

  function play() {
    slid = true;
    playing = setInterval(() => {
      if (place() === steps.length - 1) stop();
      else if (!pending()) set({ step: steps[place() + 1] });
    }, BEAT);
    if (place() === steps.length - 1) set({ step: steps[0] });
    player.textContent = "Pause";
  }

  function stop() {
    clearInterval(playing);
    playing = null;
    player.textContent = "Play";
    speak();
  }

  /** Another sentence; the hidden word is the same one, or what stands at its place. */
  function type(sentence) {
    const [before, after] = [rough(model.get("sentence")), rough(sentence)];
    const same = before.findIndex((word, i) => word !== after[i]), position = model.get("position");
    const moved = same >= 0 && same <= position ? position + after.length - before.length : position;
    set({ sentence, position: Math.max(0, Math.min(moved, after.length - 1)) });
  }

  // Showing.
  function say(text) {
    note.textContent = text;
    note.hidden = !text;
  }

  /** Where the reader is, whether or not the answer is there. */
  function showState() {
    const now = place(), step = steps[now], name = stepName(step, read[now]);
    const waits = onPage && pending() && !here.has(step);
    if (failed) {
      wait("");
      cards.classList.add("ss-old"); // they are still of another question
      status.textContent = failed;
    } else if (waits) wait(`fetching step ${count(step)}…`, 0);
    else wait(pending() ? "answering…" : "");
    again.hidden = !failed;
    say(model.get("note"));
    slider.value = now;
    slider.setAttribute("aria-valuetext", name);
    at.textContent = name;
    if (!typing && field.value !== model.get("sentence")) field.value = model.get("sentence");
    ready.value = examples.findIndex(([sentence]) => sentence === model.get("sentence"));
    if (ready.selectedIndex < 0) ready.value = "";
    showWords(words, model.get("words"), model.get("position"), (position) => set({ position }));
    drawCurves();
    scores.show(now, name);
  }

  function drawCurves() {
    if (curves.length) plot.replaceChildren(chart(curves, steps, place(), Math.max(260, Math.floor(plot.clientWidth))));
  }

  function showAnswer() {
    clearTimeout(patience);
    showState();
    if (pending()) return; // of an older question: a newer one is being answered
    const [list, predictions, truth, top] = ["words", "predictions", "truth", "top"].map((name) => model.get(name));
    truthKey.hidden = !truth.length;
    cards.replaceChildren(...predictions.map((one, i) =>
      wordCard(list[one.position], one, truth[i], rowsOf(one, truth[i], top))));
    const touch = "Touch a word: the model says what could stand there.";
    if (list.length && !predictions.length) cards.append(make("p", {}, touch));
    speak();
  }

  function speak() {
    clearTimeout(speaking);
    if (playing || pending()) return; // what passes in half a second, or is of another step, is not read aloud
    const told = ["words", "predictions", "truth"];
    speaking = setTimeout(() => { spoken.textContent = speech(...told.map((name) => model.get(name))); }, 250);
  }

  const followLink = linkFollower(root, (hash) => readLink(hash, model.get("anchor"), steps), set, say);

  const changed = () => { if (onPage) askEngine(); else showState(); };
  for (const name of QUESTION) model.on(`change:${name}`, changed);
  model.on("change:answered", showAnswer);
  model.on("change:note", showState);
  const observer = new ResizeObserver(drawCurves);
  observer.observe(plot);
  showAnswer();
  if (onPage) {
    const touches = ["pointerdown", "keydown", "focusin"];
    const touched = ({ target }) => {
      if (target === slider || target === player) return; // what these ask for is another step
      for (const event of touches) root.removeEventListener(event, touched);
      fetchAhead(model.get("step"));
    };
    for (const event of touches) root.addEventListener(event, touched);
    window.addEventListener("hashchange", followLink);
    followLink();
  }
  return () => {
    gone = true;
    clearInterval(playing);
    for (const timer of [patience, typing, speaking]) clearTimeout(timer);
    observer.disconnect();
    window.removeEventListener("hashchange", followLink);
    for (const name of QUESTION) model.off(`change:${name}`, changed);
    model.off("change:answered", showAnswer);
    model.off("change:note", showState);
  };
}

export default { render };
