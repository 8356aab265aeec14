// PairPlayground's user interface: two sentences, exchanged, replaced or written, and what can be asked about them.
// In a notebook the kernel answers; on a page of the site, the engine in the browser.

import {
  ROOT, SILENT_KERNEL, bars, copyLink, engine, fitsLink, key, linkFollower, make, percent, waiter,
} from "./shared.mjs";

const NOT_OF_TINYWORLD = "Two sentences of Tinyworld are needed for an exact answer.";
const QUESTION = ["a", "b", "first", "second", "swapped", "typed"];

export function writeLink(anchor, { a, b }) {
  return `#${new URLSearchParams({ w: anchor, a, b })}`;
}

/** The two sentences in a fragment; null when it is not for this widget; throws when it cannot be read. */
export function readLink(fragment, anchor) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (fields.get("w") !== anchor) return null;
  const [a, b] = ["a", "b"].map((name) => fields.get(name) ?? "");
  if (!a || !b || !fitsLink(a, b)) {
    throw new Error("The link's state could not be read, so the page shows its own.");
  }
  return { a, b };
}

/** Which of the examples' sentences these are, and whether they are exchanged; else the reader wrote them. */
export function origin(a, b, examples) {
  for (const swapped of [false, true]) {
    const [one, two] = swapped ? [b, a] : [a, b];
    const [first, second] = [examples.findIndex((pair) => pair.a === one), examples.findIndex((pair) => pair.b === two)];
    if (first >= 0 && second >= 0) return { first, second, swapped, typed: false };
  }
  return { typed: true };
}

/** What was done to the pair, in words. */
export function done({ first, second, swapped, typed }, examples) {
  if (typed) return "You wrote this pair, so there is no telling what really came next.";
  if (first === second) {
    return swapped ? "The two are exchanged: in its text, B comes before A." : "Nothing was changed: in its text, B follows A.";
  }
  const same = examples[first].topic === examples[second].topic;
  const whose = `${swapped ? "A" : "B"} comes from another text${same ? " of the same topic" : ""}`;
  return swapped ? `${whose}, and the two are exchanged.` : `${whose}.`;
}

/** One question: the model's bars above the truth's, yes and no. */
function card(title, answers, model, exact, more) {
  const both = (yes) => (yes === null ? null : [yes, 1 - yes]);
  return make("div", { class: "ss-card" }, make("p", { class: "ss-title" }, make("b", {}, title)),
    bars(title, answers, both(model), both(exact)), make("p", { class: "ss-small" }, more));
}

let views = 0;

function render({ model, el }) {
  const view = ++views;
  const onPage = ROOT !== undefined;
  const ask = onPage ? engine() : null;
  const names = model.get("models"), examples = model.get("examples");
  const question = () => Object.fromEntries(QUESTION.map((name) => [name, model.get(name)]));
  const initial = question();
  let asked = 0, patience, typing, speaking, gone = false;

  // The document.
  const field = (name, about) => make("textarea", { rows: 2, dir: "auto", id: `ss-${name}-${view}`, maxlength: 10000,
    autocomplete: "off", autocapitalize: "off", spellcheck: "false", "aria-label": `Sentence ${name.toUpperCase()}, ${about}`, oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => write(fields.a.value, fields.b.value), 150);
    } });
  const fields = { a: field("a", "segment 0"), b: field("b", "segment 1") };
  const line = (name, segment, before) => make("div", { class: "ss-own" },
    make("label", { for: fields[name].id, class: "ss-small" }, `${before}${name.toUpperCase()} [SEP] · segment ${segment}`), fields[name]);
  const button = (label, onclick) => make("button", { type: "button", onclick }, label);
  const buttons = make("div", { class: "ss-buttons ss-row" },
    button("Swap A and B", swap), button("B from elsewhere", () => replace(false)), button("B from the same topic", () => replace(true)),
    button("Another pair", another), button("Reset", () => set(initial)));
  if (onPage) buttons.append(button("Copy link", copy));
  const told = make("p", { class: "ss-sum" });
  const note = make("p", { class: "ss-note", role: "status", hidden: true });
  const cards = make("div", { class: "ss-cards" });
  const spoken = make("p", { class: "ss-for-readers", "aria-live": "polite" });
  const status = make("p", { class: "ss-small ss-doing", role: "status" }), wait = waiter(cards, status);
  const legend = make("div", { class: "ss-row ss-legend" }, key("model", "the model that learned this question"),
    key("truth", "exact truth"), status);
  const root = make("section", { class: "selfsup ss-pairs", "aria-label": "Pair playground" });
  root.dataset.lmSuppressShortcuts = "true"; // in JupyterLab, keys typed here are not commands
  root.append(make("div", { class: "ss-row" }, line("a", 0, "[CLS] "), line("b", 1, "")), buttons, told, note, legend, cards, spoken);
  el.replaceChildren(root);

  // Asking.
  function set(changes) {
    clearTimeout(typing); // a button wins over what is still being typed
    typing = null;
    const asks = ["a", "b"].some((name) => name in changes && changes[name] !== model.get(name));
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    try { model.save_changes(); } catch { /* a page has nowhere to save to */ }
    if (asks) wait("answering…");
    if (!onPage && asks) {
      clearTimeout(patience);
      patience = setTimeout(() => say(SILENT_KERNEL), 5000);
    }
    showQuestion();
  }

  const write = (a, b) => set({ a, b, ...origin(a, b, examples) });

  function pair(first, second, swapped) {
    const [a, b] = [examples[first].a, examples[second].b];
    set({ first, second, swapped, typed: false, a: swapped ? b : a, b: swapped ? a : b });
  }

  function swap() {
    set({ a: model.get("b"), b: model.get("a"), swapped: !model.get("swapped") });
  }

  function replace(same) {
    const { first, second } = question();
    const rivals = examples.map((_, i) => i).filter((i) => i !== first && (examples[i].topic === examples[first].topic) === same);
    const next = rivals[(rivals.indexOf(second) + 1) % rivals.length];
    if (model.get("typed")) set({ second: next, b: examples[next].b }); // what the reader wrote stays
    else pair(first, next, false);
  }

  function another() {
    const next = (model.get("first") + 1) % examples.length;
    pair(next, next, false);
  }

  async function askEngine() {
    const number = ++asked;
    await Promise.resolve(); // traits that change together are one question
    if (number !== asked || gone) return;
    const [a, b] = [model.get("a"), model.get("b")];
    const answers = {};
    let trouble = "";
    try {
      for (const about of ["next", "order"]) answers[about] = await ask(names[about], { a, b, about });
      trouble = answers.next.note;
    } catch (error) {
      trouble = `The model cannot answer: ${error.message}.`;
    }
    if (number !== asked || gone) return;
    const told = (answer) => (answer?.model == null ? null : { model: answer.model, exact: answer.exact });
    model.set("follows", told(answers.next));
    model.set("ordered", told(answers.order));
    model.set("note", trouble);
    model.set("answered", model.get("answered") + 1);
    try { model.save_changes(); } catch { /* as above */ }
  }

  const warm = () => { if (onPage) for (const name of Object.values(names)) ask(name, null).catch(() => {}); };

  function copy() {
    return copyLink(writeLink(model.get("anchor"), question()), [model.get("a"), model.get("b")], say);
  }

  // Showing.
  function say(text) {
    note.textContent = text;
    note.hidden = !text;
  }

  function showQuestion() {
    for (const [name, input] of Object.entries(fields)) if (!typing && input.value !== model.get(name)) input.value = model.get(name);
    told.textContent = done(question(), examples);
  }

  function showAnswer() {
    clearTimeout(patience);
    wait("");
    say(model.get("note"));
    const [follows, ordered] = [model.get("follows"), model.get("ordered")];
    cards.replaceChildren();
    if (follows) {
      const { model: p, exact } = follows;
      const anywhere = exact && `if it may come from any text, ${percent(exact.anywhere)} yes.`;
      cards.append(card("Does B follow A?", ["yes", "no"], p, exact && (exact.place ?? exact.anywhere), exact === null ? NOT_OF_TINYWORLD
        : exact.place === null ? `No wrong B of the same place reads so: this model never met such a pair. Exact ${anywhere}`
          : `Exact if a wrong B comes from the same place of another story, as this model learned it; ${anywhere}`));
    }
    if (ordered) {
      const { model: p, exact } = ordered;
      cards.append(card("Did A come first?", ["yes", "no"], p, exact ? exact.order : null, exact
        ? "Exact if one of the two follows the other."
        : follows?.exact ? "These two are never neighbours, so there is no exact answer." : NOT_OF_TINYWORLD));
    }
    clearTimeout(speaking);
    speaking = setTimeout(() => {
      const said = (answer, exact) => `the model says ${percent(answer.model)}${exact === undefined ? "" : `, exact ${percent(exact)}`}`;
      spoken.textContent = follows && ordered ? `B follows A: ${said(follows, follows.exact?.place ?? follows.exact?.anywhere)}. A came first: ${said(ordered, ordered.exact?.order)}.` : "";
    }, 250);
  }

  const followLink = linkFollower(root, (hash) => readLink(hash, model.get("anchor")), (found) => write(found.a, found.b), say);

  const changed = () => { showQuestion(); if (onPage) askEngine(); };
  const answered = () => { showQuestion(); showAnswer(); };
  const noted = () => say(model.get("note"));
  for (const name of ["a", "b"]) model.on(`change:${name}`, changed);
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
    for (const timer of [patience, typing, speaking]) clearTimeout(timer);
    window.removeEventListener("hashchange", followLink);
    for (const name of ["a", "b"]) model.off(`change:${name}`, changed);
    model.off("change:answered", answered);
    model.off("change:note", noted);
  };
}

export default { render };
