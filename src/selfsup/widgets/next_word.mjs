// NextWord's user interface: a text, what may come next, and dice that the reader sets.
// In a notebook the kernel answers; on a page of the site, the engine in the browser. The dice are always the page's.

import { die, distribution, entropy, pick } from "./sampling.mjs";
import {
  ROOT, SILENT_KERNEL, clip, copyLink, engine, fitsLink, key, linkFollower, make, percent, waiter,
} from "./shared.mjs";

const SHOWN = 8, MOST_AT_ONCE = 40;

/** The text with one word more: names and beginnings of sentences have capitals, a quotation mark its blank outside. */
export function joined(text, word, names = []) {
  const before = text.trimEnd(), quoted = before.split('"').length % 2 === 0, opened = quoted && before.endsWith('"');
  const tight = !before || /^[.,!?]$/.test(word) || opened || (quoted && word === '"');
  const capital = !before || /[.!?]$/.test(before) || opened || names.includes(word) || word === "i";
  return `${before}${tight ? "" : " "}${capital ? word[0].toUpperCase() + word.slice(1) : word}`;
}

export function writeLink(anchor, { text, temperature, top_k, top_p }) {
  return `#${new URLSearchParams({ w: anchor, s: text, t: temperature, k: top_k, p: top_p })}`;
}

/** The text and the settings in a fragment; null when it is not for this widget; throws when it cannot be read. */
export function readLink(fragment, anchor) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (fields.get("w") !== anchor) return null;
  const text = fields.get("s") ?? "";
  const [temperature, top_k, top_p] = ["t", "k", "p"].map((name) => Number(fields.get(name) ?? NaN));
  if (!fitsLink(text) || !(temperature >= 0 && temperature <= 2) || !Number.isInteger(top_k) || top_k < 0
    || top_k > 1000 || !(top_p >= 0.01 && top_p <= 1)) {
    throw new Error("The link's state could not be read, so the page shows its own.");
  }
  return { text, temperature, top_k, top_p };
}

const KS = [1, 2, 3, 5, 10, 20, 50, 0]; // the places of the slider; 0 is all

let views = 0;

function render({ model, el }) {
  const view = ++views;
  const onPage = ROOT !== undefined;
  const ask = onPage ? engine() : null;
  const name = model.get("model_name"), examples = model.get("examples");
  const vocabulary = model.get("vocabulary"), end = model.get("end"), never = model.get("never"), names = model.get("names");
  const settings = () => Object.fromEntries(["temperature", "top_k", "top_p"].map((one) => [one, model.get(one)]));
  const offered = () => model.get("logits").map((logit, id) => (never.includes(id) ? -Infinity : logit));
  const drawn = ({ temperature, top_k, top_p }) => distribution(offered(), { temperature, topK: top_k || null, topP: top_p });
  const initial = { text: model.get("text"), ...settings() };
  const label = (id) => (id === end ? "■ end of text" : clip(vocabulary[id]));
  let asked = 0, patience, typing, speaking, running = false, gone = false, waiting = null;

  // The document.
  const button = (text, onclick, traits = {}) => make("button", { type: "button", onclick, ...traits }, text);
  const field = make("textarea", { rows: 2, dir: "auto", id: `ss-text-${view}`, maxlength: 10000, autocomplete: "off",
    autocapitalize: "off", spellcheck: "false", oninput: () => {
      stop();
      clearTimeout(typing);
      typing = setTimeout(() => set({ text: field.value }), 150);
    } });
  const own = make("div", { class: "ss-own" }, make("label", { for: field.id, class: "ss-small" }, "The text so far: write a beginning"), field);
  const player = button("Continue", () => (running ? stop() : run(MOST_AT_ONCE)));
  const buttons = make("div", { class: "ss-buttons ss-row" }, player, button("One word", () => run(1)), button("Take one back", back));
  if (examples.length > 1) buttons.append(button("Another beginning", another));
  buttons.append(button("Reset", () => { stop(); set(initial); }));
  if (onPage) buttons.append(button("Copy link", () => copyLink(writeLink(model.get("anchor"), { text: model.get("text"), ...settings() }), [model.get("text")], say)));
  const slider = (title, traits, read, shown) => {
    const value = make("output", { class: "ss-small" });
    const input = make("input", { type: "range", id: `ss-${title.replace(/\W/g, "")}-${view}`, ...traits, oninput: () => set(read(Number(input.value))) });
    const show = (place, text) => {
      input.value = place;
      value.textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    return { node: make("div", { class: "ss-setting" }, make("label", { for: input.id }, title, " ", value), input), show: () => show(...shown()) };
  };
  const sliders = [
    slider("Temperature", { min: 0, max: 2, step: 0.1 }, (value) => ({ temperature: value }),
      () => [model.get("temperature"), model.get("temperature") ? model.get("temperature").toFixed(1) : "0: always the best"]),
    slider("Top-k", { min: 0, max: KS.length - 1, step: 1 }, (value) => ({ top_k: KS[value] }), () => {
      const k = model.get("top_k"), place = k ? KS.findIndex((one) => one >= k) : KS.length - 1;
      return [place < 0 ? KS.length - 2 : place, k ? `the ${k} best` : "all words"];
    }),
    slider("Top-p", { min: 0.05, max: 1, step: 0.05 }, (value) => ({ top_p: value }),
      () => [model.get("top_p"), model.get("top_p") < 1 ? `the best that have ${percent(model.get("top_p"))}` : "all words"]),
  ];
  const told = make("p", { class: "ss-sum" });
  const note = make("p", { class: "ss-note", role: "status", hidden: true });
  const body = make("tbody");
  const table = make("table", { class: "ss-bars ss-next", "aria-label": "What may come next" }, body);
  const tree = make("details", { class: "ss-tree", ontoggle: () => set({ growing: tree.open }) }, make("summary", {}, "The tree of alternatives, at temperature 1"));
  const grown = make("div");
  tree.append(grown);
  const spoken = make("p", { class: "ss-for-readers", "aria-live": "polite" });
  const truthKey = key("truth", "exact truth"), status = make("p", { class: "ss-small ss-doing", role: "status" });
  const legend = make("div", { class: "ss-row ss-legend" }, key("model", "the model, as you set the dice"), truthKey, status);
  const answerPart = make("div", { class: "ss-answer" }, told, table, tree), wait = waiter(answerPart, status);
  const root = make("section", { class: "selfsup ss-next-word", "aria-label": "What comes next" });
  root.dataset.lmSuppressShortcuts = "true"; // in JupyterLab, keys typed here are not commands
  root.append(own, buttons, make("div", { class: "ss-settings" }, ...sliders.map(({ node }) => node)), note, legend, answerPart, spoken);
  el.replaceChildren(root);

  // Asking.
  function set(changes) {
    if ("text" in changes) {
      clearTimeout(typing);
      typing = null;
    }
    const asks = ["text", "growing"].some((one) => one in changes && changes[one] !== model.get(one));
    for (const [one, value] of Object.entries(changes)) model.set(one, value);
    try { model.save_changes(); } catch { /* a page has nowhere to save to */ }
    if (asks) wait("answering…");
    if (!onPage && asks) {
      clearTimeout(patience);
      patience = setTimeout(() => { stop(); say(SILENT_KERNEL); }, 5000);
    }
    showQuestion();
    if (!asks) showAnswer();
  }

  async function askEngine() {
    const number = ++asked;
    await Promise.resolve(); // traits that change together are one question
    if (number !== asked || gone) return;
    let found;
    try {
      found = await ask(name, { beginning: model.get("text"), growing: model.get("growing") });
    } catch (error) {
      found = { words: [], logits: [], truth: [], tree: [], note: `The model cannot answer: ${error.message}.` };
    }
    if (number !== asked || gone) return;
    for (const [one, value] of Object.entries(found)) model.set(one, value);
    model.set("answered", model.get("answered") + 1);
    try { model.save_changes(); } catch { /* as above */ }
  }

  /** Resolves with the next answer. */
  const answer = () => new Promise((resolve) => { waiting = resolve; });

  function stop() {
    running = false;
    player.textContent = "Continue";
  }

  /** Draw up to `most` words, one after another. */
  async function run(most) {
    if (answerPart.getAttribute("aria-busy") || running) return;
    running = true;
    if (most > 1) player.textContent = "Stop";
    for (let left = most; left > 0 && running && !gone; left--) {
      const logits = model.get("logits");
      if (!logits.length) break;
      const seed = model.get("seed"), place = model.get("words").length;
      const id = pick(drawn(settings()), die(seed, place));
      model.set("seed", (seed + 1) % 65536); // the same place drawn anew is another draw
      if (id === end) {
        say("The text ends here: the model drew ■.");
        break;
      }
      const next = answer();
      set({ text: joined(model.get("text"), vocabulary[id], names) });
      await next;
      if (left === 1 && most > 1) say(`${most} words more: press Continue to go on.`);
    }
    stop();
  }

  function choose(id) {
    stop();
    if (id === end) say("The text ends here: take a word back, or choose another beginning.");
    else set({ text: joined(model.get("text"), vocabulary[id], names) });
  }

  function back() {
    stop();
    set({ text: model.get("text").trimEnd().replace(/(\s*[^\s\p{L}\p{N}]|\s*[\p{L}\p{N}'-]+)$/u, "") });
  }

  function another() {
    stop();
    set({ text: examples[(examples.indexOf(model.get("text")) + 1) % examples.length] });
  }

  // Showing.
  function say(text) {
    note.textContent = text;
    note.hidden = !text;
  }

  function showQuestion() {
    if (!typing && field.value !== model.get("text")) field.value = model.get("text");
    for (const { show } of sliders) show();
  }

  function showAnswer() {
    const logits = model.get("logits"), truth = model.get("truth");
    const focused = body.contains(document.activeElement) ? [...body.rows].indexOf(document.activeElement.closest("tr")) : -1;
    body.replaceChildren();
    told.textContent = "";
    truthKey.hidden = !truth.length;
    if (!logits.length) return;
    const plain = distribution(offered()), chances = drawn(settings());
    const best = Array.from(plain.keys()).sort((a, b) => plain[b] - plain[a] || a - b).slice(0, SHOWN);
    const likely = truth.length ? Array.from(truth.keys()).sort((a, b) => truth[b] - truth[a] || a - b).slice(0, 3).filter((id) => truth[id] && !best.includes(id)) : [];
    for (const id of [...best.slice(0, SHOWN - likely.length), ...likely]) {
      const bar = (kind, value) => {
        const node = make("span", { class: `ss-bar ss-bar-${kind}` });
        node.hidden = value === 0;
        node.style.width = `${100 * value}%`;
        return node;
      };
      const number = (kind, who, value) => make("span", { class: `ss-number ss-${kind}-text` }, make("span", { class: "ss-for-readers" }, `${who} `), percent(value));
      const bars = make("td", { "aria-hidden": "true" }, bar("model", chances[id])), numbers = make("td", {}, number("model", "model", chances[id]));
      if (truth.length) {
        bars.append(bar("truth", truth[id]));
        numbers.append(number("truth", ", exact", truth[id]));
      }
      const word = button(label(id), () => choose(id), { title: id === end ? "the text ends" : `go on with “${vocabulary[id]}”` });
      body.append(make("tr", { class: chances[id] ? "" : "ss-out" }, make("th", { scope: "row" }, word), bars, numbers));
    }
    if (focused >= 0) body.rows[Math.min(focused, body.rows.length - 1)]?.querySelector("button").focus();
    const left = chances.reduce((n, p) => n + (p > 0), 0);
    told.append(`${left === 1 ? "1 word" : `${left} words`} can be drawn. Still open: `,
      make("span", { class: "ss-model-text" }, `${entropy(chances).toFixed(2)} nats`));
    if (truth.length) told.append(", exact ", make("span", { class: "ss-truth-text" }, `${entropy(truth).toFixed(2)} nats`));
    told.append(".");
  }

  /** A list of alternatives; a branch is walked by its buttons, and its words chosen together. */
  function list(branches, before) {
    return make("ul", {}, ...branches.map(({ id, p, exact, next }) => {
      const path = [...before, id];
      const walk = () => { stop(); set({ text: path.filter((one) => one !== end).reduce((text, one) => joined(text, vocabulary[one], names), model.get("text")) }); };
      const item = make("li", {}, button(label(id), walk), make("span", { class: "ss-model-text ss-small" }, ` ${percent(p)}`));
      if (exact !== null) item.append(make("span", { class: "ss-truth-text ss-small" }, make("span", { class: "ss-for-readers" }, " exact"), ` ${percent(exact)}`));
      if (next.length) item.append(list(next, path));
      return item;
    }));
  }

  function answered() {
    clearTimeout(patience);
    wait("");
    showQuestion();
    say(model.get("note"));
    showAnswer();
    grown.replaceChildren(...(model.get("tree").length ? [list(model.get("tree"), [])] : []));
    clearTimeout(speaking);
    speaking = setTimeout(() => {
      const first = body.rows[0]?.cells;
      spoken.textContent = first ? `Next, the likeliest: ${[...body.rows].slice(0, 3).map((row) => `${row.cells[0].textContent} ${row.cells[2].textContent}`).join("; ")}.` : "";
    }, 250);
    waiting?.();
    waiting = null;
  }

  const warm = () => { if (onPage) ask(name, null).catch(() => {}); };
  const followLink = linkFollower(root, (hash) => readLink(hash, model.get("anchor")), (found) => {
    stop();
    set(found);
  }, say);

  const changed = () => { showQuestion(); if (onPage) askEngine(); };
  const moved = () => { showQuestion(); showAnswer(); };
  const noted = () => say(model.get("note"));
  for (const one of ["text", "growing"]) model.on(`change:${one}`, changed);
  for (const one of ["temperature", "top_k", "top_p"]) model.on(`change:${one}`, moved);
  model.on("change:answered", answered);
  model.on("change:note", noted);
  answered();
  if (onPage) {
    for (const event of ["pointerdown", "keydown", "focusin"]) root.addEventListener(event, warm, { once: true });
    window.addEventListener("hashchange", followLink);
    followLink();
  }
  return () => {
    gone = true;
    stop();
    for (const timer of [patience, typing, speaking]) clearTimeout(timer);
    window.removeEventListener("hashchange", followLink);
    for (const one of ["text", "growing"]) model.off(`change:${one}`, changed);
    for (const one of ["temperature", "top_k", "top_p"]) model.off(`change:${one}`, moved);
    model.off("change:answered", answered);
    model.off("change:note", noted);
  };
}

export default { render };
