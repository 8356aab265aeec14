// MaskPlayground's user interface. In a notebook the kernel answers; on a page of the site, the engine in the browser.
// Everything shown is a trait: the question (sentence, touched, model_name, top) and the answer to it.

import {
  ROOT, SILENT_KERNEL, check, choice, clip, copyLink, engine, fillWord, fitsLink, key, linkFollower, make, nats, rough, speech, waiter,
  wordCard,
} from "./shared.mjs";

const QUESTION = ["sentence", "touched", "model_name", "top"];
const KINDS = { mask: "[MASK]", random: "random word", unchanged: "unchanged" };

export function writeLink(anchor, { sentence, touched, model_name }) {
  const mark = { mask: "m", unchanged: "u" };
  const codes = touched.map(({ position, kind, seed = 0, word }) =>
    position + (mark[kind] ?? (word === undefined ? `r${seed}` : `w${encodeURIComponent(word)}`)));
  const fields = { w: anchor, m: model_name, s: sentence, t: codes.join(" ") };
  return `#${new URLSearchParams(fields)}`;
}

/** The question in a fragment; null when it is not for this widget; throws when it cannot be read. */
export function readLink(fragment, anchor, names) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (fields.get("w") !== anchor) return null;
  const unreadable = new Error("The link's state could not be read, so the page shows its own.");
  const [sentence, model_name, codes] = ["s", "m", "t"].map((name) => fields.get(name) ?? "");
  if (!names.includes(model_name) || !fitsLink(sentence)) throw unreadable;
  const touched = codes.split(" ").filter(Boolean).map((code) => {
    const match = /^(\d{1,3})(?:(m)|(u)|r(\d{1,5})|w([^ ]{1,300}))$/.exec(code);
    if (!match || Number(match[4] ?? 0) > 65535) throw unreadable;
    const position = Number(match[1]);
    if (match[2]) return { position, kind: "mask" };
    if (match[3]) return { position, kind: "unchanged" };
    if (match[4] !== undefined) return { position, kind: "random", seed: Number(match[4]) };
    try {
      return { position, kind: "random", word: decodeURIComponent(match[5]).slice(0, 100) };
    } catch {
      throw unreadable;
    }
  });
  return { sentence, model_name, touched };
}

/** What is shown of a hidden token's predictions: the likeliest of either, and the real one. */
function rowsOf(prediction, truth, top) {
  const exactly = new Map(truth?.top ?? []);
  const rows = prediction.top.map(([token, p]) => ({ token, p, q: exactly.get(token) }));
  rows.sort((a, b) => Math.max(b.p, b.q ?? 0) - Math.max(a.p, a.q ?? 0));
  return rows.filter(({ token }, index) => index < top + 1 || token === prediction.real);
}

let views = 0;

function render({ model, el }) {
  const view = ++views;
  const choices = model.get("choices");
  const shippedHere = (name) => choices.find((one) => one.name === name)?.shipped;
  const onPage = ROOT !== undefined;
  const alive = !onPage || shippedHere(model.get("model_name"));
  const offered = choices.filter(({ shipped }) => shipped || !onPage);
  const names = offered.map(({ name }) => name);
  const labels = Object.fromEntries(offered.map(({ name, label }) => [name, label]));
  const ask = onPage ? engine() : null;
  const question = () => Object.fromEntries(QUESTION.map((name) => [name, model.get(name)]));
  const initial = question();
  let brush = "mask", asked = 0, patience, typing, speaking, gone = false;

  // The document.
  const words = make("ul", { class: "ss-words", dir: "auto", "aria-label": "The sentence: touch a word to hide it" });
  const note = make("p", { class: "ss-note", role: "status", hidden: true });
  const sum = make("p", { class: "ss-sum" });
  const told = make("p", { class: "ss-small ss-told" });
  const cards = make("div", { class: "ss-cards" });
  const spoken = make("p", { class: "ss-for-readers", "aria-live": "polite" });
  const truthKey = key("truth", "exact truth"), status = make("p", { class: "ss-small ss-doing", role: "status" });
  const wait = waiter(cards, status);
  const legend = make("div", { class: "ss-row ss-legend" }, key("seen", "x′ what the model sees"),
    key("hidden", "x″ what is hidden from it"), key("model", "the model"), truthKey, status);
  const field = make("input", { type: "text", dir: "auto", id: `ss-text-${view}`, maxlength: 10000, autocomplete: "off",
    autocapitalize: "off", spellcheck: "false", placeholder: "type a sentence", oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => type(field.value), 150);
    } });
  const models = choice("Model", `ss-model-${view}`, labels, pickModel);
  const brushes = choice("A touched word becomes", `ss-brush-${view}`, KINDS, (kind) => { brush = kind; });
  check(brushes, brush);
  const button = (label, onclick) => make("button", { type: "button", onclick }, label);
  const buttons = make("div", { class: "ss-buttons" }, button("Mask 15%", maskSome),
    make("button", { type: "button", "aria-label": "Another sentence", onclick: another }, "Another"),
    button("Reset", () => set(initial)));
  if (onPage) buttons.append(button("Copy link", copy));
  models.hidden = names.length < 2;
  const fieldLabel = make("label", { for: field.id, class: "ss-small" }, "Your own sentence");
  const controls = [
    make("div", { class: "ss-row ss-spread" }, models, brushes),
    make("div", { class: "ss-row ss-last" }, make("div", { class: "ss-own" }, fieldLabel, field), buttons),
  ];
  const root = make("section", { class: "selfsup ss-playground", "aria-label": "Mask playground" });
  root.dataset.lmSuppressShortcuts = "true"; // in JupyterLab, keys typed here are not commands
  root.append(...(alive ? controls : []), words, note, sum, told, legend, cards, spoken);
  el.replaceChildren(root);

  // Asking.
  function set(changes) {
    const differs = ([name, value]) => JSON.stringify(value) !== JSON.stringify(model.get(name));
    const asks = Object.entries(changes).some(differs);
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    try { model.save_changes(); } catch { /* a page has nowhere to save to */ }
    if (!onPage && asks) { // the same question again is not answered again
      wait("answering…");
      clearTimeout(patience);
      patience = setTimeout(() => say(SILENT_KERNEL), 5000);
    }
  }

  async function askEngine() {
    const number = ++asked;
    await Promise.resolve(); // traits that change together are one question
    if (number !== asked || gone) return;
    wait("answering…");
    let answer;
    try {
      answer = await ask(model.get("model_name"), question());
    } catch (error) {
      answer = { note: `The model cannot answer: ${error.message}.` };
    }
    if (number !== asked || gone) return;
    for (const [name, value] of Object.entries(answer)) model.set(name, value);
    model.set("answered", model.get("answered") + 1);
    try { model.save_changes(); } catch { /* as above */ }
  }

  const warm = () => { if (onPage && alive) ask(model.get("model_name"), null).catch(() => {}); };

  function touch(position) {
    const touched = model.get("touched");
    const before = touched.find((one) => one.position === position);
    const others = touched.filter((one) => one !== before);
    const now = { position, kind: brush };
    if (brush === "random") now.seed = Math.floor(Math.random() * 65536);
    set({ touched: before?.kind === brush ? others : [...others, now].sort((a, b) => a.position - b.position) });
  }

  function maskSome() {
    const free = model.get("words").flatMap(({ given }, position) => (given ? [] : [position]));
    const chosen = free.filter(() => Math.random() < 0.15);
    if (!chosen.length && free.length) chosen.push(free[Math.floor(Math.random() * free.length)]);
    set({ touched: chosen.map((position) => ({ position, kind: "mask" })) });
  }

  function type(sentence) {
    const [before, after] = [rough(model.get("sentence")), rough(sentence)];
    const same = before.findIndex((word, at) => word !== after[at]);
    const kept = same < 0 ? before.length : same;
    set({ sentence, touched: model.get("touched").filter(({ position }) => position < kept) });
  }

  const example = ([sentence, position]) => ({ sentence, touched: [{ position, kind: "mask" }] });

  function another() {
    const examples = model.get("examples")[model.get("model_name")];
    const now = examples.findIndex(([sentence]) => sentence === model.get("sentence"));
    set(example(examples[(now + 1) % examples.length]));
  }

  function pickModel(name) {
    const examples = model.get("examples");
    const sentence = model.get("sentence");
    const own = !Object.values(examples).flat().some(([known]) => known === sentence);
    set({ model_name: name, ...(own ? {} : example(examples[name][0])) });
  }

  function copy() {
    spoken.textContent = "";
    return copyLink(writeLink(model.get("anchor"), question()), [model.get("sentence")], say);
  }

  // Showing.
  function say(text) {
    note.textContent = text;
    note.hidden = !text;
  }

  function showWords() {
    const list = model.get("words");
    const touched = new Map(model.get("touched").map((one) => [one.position, one]));
    while (words.children.length > list.length) words.lastChild.remove();
    list.forEach((word, position) => {
      const kind = word.given ? "mask" : touched.get(position)?.kind ?? "";
      const seen = kind === "mask" ? word.pieces.map(() => "[MASK]") : kind === word.kind ? word.seen : word.pieces;
      const split = word.pieces.length > 1;
      const shown = kind === "mask" || kind === "random" ? seen.join(" ") : word.text;
      const tag = alive && !word.given ? "BUTTON" : "SPAN";
      let item = words.children[position];
      if (item?.firstChild.tagName !== tag) {
        const traits = tag === "BUTTON" ? { type: "button", onclick: () => touch(position) } : {};
        const fresh = make("li", {}, make(tag.toLowerCase(), traits));
        if (item) item.replaceWith(fresh); else words.append(fresh);
        item = fresh;
      }
      const box = item.firstChild;
      box.className = `ss-word${kind ? " ss-touched" : ""}${/^\p{P}$/u.test(word.text) ? " ss-mark" : ""}`;
      if (tag === "BUTTON") {
        box.setAttribute("aria-pressed", String(Boolean(kind)));
        const as = { mask: "hidden by [MASK]", random: `the model sees ${shown}`, unchanged: "left unchanged" };
        box.setAttribute("aria-label", clip(word.text, 40) + (kind ? `, ${as[kind]}` : ""));
      }
      const under = word.given || !(kind || split) ? "" : clip(split ? word.pieces.join(" ") : word.text, 48);
      fillWord(box, word.text, shown, under, kind === "mask");
    });
  }

  function showAnswer() {
    clearTimeout(patience);
    wait("");
    const [list, predictions, truth] = ["words", "predictions", "truth"].map((name) => model.get(name));
    say(model.get("note"));
    truthKey.hidden = !truth.length;
    const top = model.get("top");
    cards.replaceChildren(...predictions.map((one, index) =>
      wordCard(list[one.position], one, truth[index], rowsOf(one, truth[index], top))));
    const [loss, floor] = [model.get("cross_entropy"), model.get("floor")];
    sum.replaceChildren();
    if (loss === null) {
      if (list.length && !predictions.length) sum.append("Touch a word: the model says what could stand there.");
    } else {
      const count = predictions.filter((one) => one.real !== null).length;
      sum.append("Cross-entropy of the real ", count > 1 ? `words, mean of ${count}: ` : "word: ",
        make("b", { class: "ss-model-text" }, `model ${nats(loss)}`));
      if (floor !== null) sum.append(", ", make("b", { class: "ss-truth-text" }, `exact ${nats(floor)}`));
      sum.append(" nats");
    }
    const unseen = truth.length && list.some(({ kind }) => kind === "random" || kind === "unchanged");
    told.textContent = unseen ? "Exact is what follows from the untouched words. The model also sees what stands at a touched place, so at an unchanged word it can do better." : "";
    told.hidden = !unseen;
    clearTimeout(speaking);
    speaking = setTimeout(() => { spoken.textContent = speech(list, predictions, truth); }, 250);
  }

  function showQuestion() {
    if (document.activeElement !== field) field.value = model.get("sentence");
    check(models, model.get("model_name"));
    showWords();
  }

  const followLink = linkFollower(root, (hash) => readLink(hash, model.get("anchor"), names), set, say);

  const changed = () => { showQuestion(); if (onPage && alive) askEngine(); };
  const answered = () => { showQuestion(); showAnswer(); };
  const noted = () => say(model.get("note"));
  for (const name of QUESTION) model.on(`change:${name}`, changed);
  model.on("change:answered", answered);
  model.on("change:note", noted);
  answered();
  if (onPage && alive) {
    for (const event of ["pointerdown", "keydown", "focusin"]) root.addEventListener(event, warm, { once: true });
    window.addEventListener("hashchange", followLink);
    followLink();
  }
  return () => {
    gone = true;
    for (const timer of [patience, typing, speaking]) clearTimeout(timer);
    window.removeEventListener("hashchange", followLink);
    for (const name of QUESTION) model.off(`change:${name}`, changed);
    model.off("change:answered", answered);
    model.off("change:note", noted);
  };
}

export default { render };
