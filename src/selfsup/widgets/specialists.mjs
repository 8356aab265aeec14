// Specialists' user interface: one text, and four fine-tuned models that answer at once.
// In a notebook the kernel answers; on a page of the site, the engine in the browser.

import {
  ROOT, SILENT_KERNEL, bars, copyLink, engine, fitsLink, key, linkFollower, make, percent, waiter,
} from "./shared.mjs";

const MODEL = "tinyworld-start";
const QUESTION = ["text", "statement", "query"];
const ANSWER = ["words", "sentiment", "tags", "entailment", "found", "note"];
const TAGS = {
  ADJ: "adjective (happy)", ADV: "adverb (slowly)", AUX: "helping verb (was)", CONJ: "joining word (and)",
  DET: "determiner (the)", NAME: "name (Rosa)", NOUN: "noun (garden)", NUM: "number (two)", PART: "particle (not)",
  PREP: "preposition (in)", PRON: "pronoun (she)", PUNCT: "punctuation (. ,)", VERB: "verb (walked)",
};

export function writeLink(anchor, question) {
  return `#${new URLSearchParams([["w", anchor], ...QUESTION.map((name) => [name, question[name]])])}`;
}

/** The question in a fragment; null when it is not for this widget; throws when it cannot be read. */
export function readLink(fragment, anchor) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (fields.get("w") !== anchor) return null;
  const found = Object.fromEntries(QUESTION.map((name) => [name, fields.get(name) ?? ""]));
  if (!found.text || !fitsLink(...Object.values(found))) {
    throw new Error("The link's state could not be read, so the page shows its own.");
  }
  return found;
}

/** Where each word stands in the text, [from, to]; null where they are not the words of this text. */
function placesOf(text, words) {
  const places = [];
  for (const word of words) {
    const from = text.indexOf(word, places.at(-1)?.[1]);
    if (from < 0) return null;
    places.push([from, from + word.length]);
  }
  return places;
}

/** The text cut before and after the words from first to last + 1: [before, span, after]. */
export function cut(text, words, [first, end]) {
  const places = placesOf(text, words);
  const [from, to] = [places[first][0], places[end - 1][1]];
  return [text.slice(0, from), text.slice(from, to), text.slice(to)];
}

let views = 0;

function render({ model, el }) {
  const view = ++views;
  const onPage = ROOT !== undefined;
  const ask = onPage ? engine() : null;
  const examples = model.get("examples");
  const question = () => Object.fromEntries(QUESTION.map((name) => [name, model.get(name)]));
  const initial = { ...question(), example: model.get("example") };
  let asked = 0, patience, typing, speaking, gone = false;

  // The document.
  const typed = (tag, name, traits) => make(tag, { dir: "auto", id: `ss-${name}-${view}`, maxlength: 10000, autocomplete: "off",
    autocapitalize: "off", spellcheck: "false", ...traits, oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => set(Object.fromEntries(QUESTION.map((one) => [one, fields[one].value]))), 150);
    } });
  const fields = {
    text: typed("textarea", "text", { rows: 3 }),
    statement: typed("input", "statement", { type: "text", "aria-label": "Your own statement", placeholder: "or type your own" }),
    query: typed("input", "query", { type: "text", "aria-label": "Your own question", placeholder: "or type your own" }),
  };
  const ready = (name, label) => make("select", { "aria-label": label, onchange: ({ target }) => {
    if (target.value) set({ [name]: target.value });
  } });
  const lists = { statement: ready("statement", "A ready statement"), query: ready("query", "A ready question") };
  const button = (label, onclick) => make("button", { type: "button", onclick }, label);
  const buttons = make("div", { class: "ss-buttons ss-row" }, button("Another text", another), button("Reset", () => set(initial)));
  if (onPage) buttons.append(button("Copy link", copy));
  const note = make("p", { class: "ss-note", role: "status", hidden: true });
  const card = (title, ...controls) => {
    const body = make("div");
    cards.append(make("section", { class: "ss-card", "aria-label": title },
      make("p", { class: "ss-title" }, make("b", {}, title)), ...controls, body));
    return body;
  };
  const cards = make("div", { class: "ss-cards ss-four" });
  const ending = card("How does it end?");
  const follows = card("Does this follow?", lists.statement, fields.statement);
  const answer = card("Where is the answer?", lists.query, fields.query);
  const kinds = card("What kind of word is each?");
  const spoken = make("p", { class: "ss-for-readers", "aria-live": "polite" });
  const status = make("p", { class: "ss-small ss-doing", role: "status" }), wait = waiter(cards, status);
  const legend = make("div", { class: "ss-row ss-legend" }, key("model", "the fine-tuned models"), key("truth", "exact truth"), status);
  const root = make("section", { class: "selfsup ss-specialists", "aria-label": "Four fine-tuned models" });
  root.dataset.lmSuppressShortcuts = "true"; // in JupyterLab, keys typed here are not commands
  root.append(make("label", { for: fields.text.id, class: "ss-small" }, "Your text"), fields.text, buttons, note, legend, cards, spoken);
  el.replaceChildren(root);

  // Asking.
  function set(changes) {
    clearTimeout(typing);
    typing = null;
    const asks = QUESTION.some((name) => name in changes && changes[name] !== model.get(name));
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    try { model.save_changes(); } catch { /* a page has nowhere to save to */ }
    if (asks) wait("answering…");
    if (!onPage && asks) {
      clearTimeout(patience);
      patience = setTimeout(() => say(SILENT_KERNEL), 5000);
    }
    showQuestion();
  }

  function another() {
    const example = (model.get("example") + 1) % examples.length;
    const { text, statements, queries } = examples[example];
    set({ text, statement: statements[0], query: queries[0], example });
  }

  async function askEngine() {
    const number = ++asked;
    await Promise.resolve(); // traits that change together are one question
    if (number !== asked || gone) return;
    let found;
    try {
      found = await ask(MODEL, { ...question(), forms: model.get("forms") });
    } catch (error) {
      found = { words: [], sentiment: null, tags: [], entailment: null, found: null, note: `The models cannot answer: ${error.message}.` };
    }
    if (number !== asked || gone) return;
    for (const name of ANSWER) model.set(name, found[name]);
    model.set("answered", model.get("answered") + 1);
    try { model.save_changes(); } catch { /* as above */ }
  }

  const warm = () => ask(MODEL, { ...question(), forms: model.get("forms") }).catch(() => {});

  function copy() {
    return copyLink(writeLink(model.get("anchor"), question()), Object.values(question()), say);
  }

  // Showing.
  function say(text) {
    note.textContent = text;
    note.hidden = !text;
  }

  function showQuestion() {
    if (!typing) for (const [name, input] of Object.entries(fields)) if (input.value !== model.get(name)) input.value = model.get(name);
    const { statements, queries } = examples[model.get("example")];
    for (const [name, options] of [["statement", statements], ["query", queries]]) {
      const chosen = model.get(name), own = !options.includes(chosen);
      lists[name].replaceChildren(make("option", { value: "", hidden: !own }, chosen ? "your own" : "choose one"),
        ...options.map((option) => make("option", { value: option }, option)));
      lists[name].value = own ? "" : chosen;
    }
  }

  const small = (text) => make("p", { class: "ss-small" }, text);

  function showAnswer() {
    clearTimeout(patience);
    wait("");
    say(model.get("note"));
    const { words, sentiment, tags, entailment, found } = Object.fromEntries(ANSWER.map((name) => [name, model.get(name)]));
    ending.replaceChildren(...(sentiment ? [
      bars("How does it end?", sentiment.classes, sentiment.model, sentiment.exact),
      small(sentiment.exact ? "Where the text does not tell the end, the truth is 50% each." : "Only texts of Tinyworld have an exact answer."),
    ] : []));
    follows.replaceChildren(...(entailment ? [
      bars("Does this follow?", entailment.classes, entailment.model, entailment.exact),
      small("Entailment: it must be true. Neutral: it may be. Contradiction: it cannot be."),
      small(entailment.chance === null ? "No exact answer: the rules judge statements like those in the list, of heroes and things that the text may have."
        : `By the rules of Tinyworld it is true with a chance of ${percent(entailment.chance)}.`),
    ] : [small(words.length ? "Choose a statement, or type one." : "Type a text first.")]));
    const span = found?.span.length ? cut(model.get("text"), words, found.span) : null;
    answer.replaceChildren(...(found ? [
      make("p", { class: "ss-passage", dir: "auto" }, ...(span ? [span[0], make("mark", {}, span[1]), span[2]] : [model.get("text")])),
      make("p", { class: "ss-model-text" }, span ? `“${span[1]}”` : "The text does not say", ` · ${percent(found.p)}`),
    ] : [small(words.length ? "Choose a question, or type one." : "Type a text first.")]));
    kinds.replaceChildren(
      make("ul", { class: "ss-tags", dir: "auto" }, ...words.map((word, i) => {
        const [tag, p] = tags[i];
        return make("li", { title: `${TAGS[tag] ?? tag}, ${percent(p)}` }, make("bdi", {}, word),
          make("span", { class: "ss-token ss-model-text" }, make("span", { class: "ss-for-readers" }, ": "), tag));
      })),
      make("p", { class: "ss-small ss-meanings" }, ...[...new Set(tags.map(([tag]) => tag))].sort().map((tag) =>
        make("span", {}, make("span", { class: "ss-token ss-model-text" }, tag), ` ${TAGS[tag] ?? ""}`))));
    clearTimeout(speaking);
    speaking = setTimeout(() => {
      const top = ({ classes, model: chances }) => {
        const best = chances.indexOf(Math.max(...chances));
        return `${classes[best]}, ${percent(chances[best])}`;
      };
      spoken.textContent = [
        sentiment && `The end: ${top(sentiment)}.`, entailment && `The statement: ${top(entailment)}.`,
        found && `The answer: ${span ? span[1] : "the text does not say"}, ${percent(found.p)}.`,
      ].filter(Boolean).join(" ");
    }, 250);
  }

  const followLink = linkFollower(root, (hash) => readLink(hash, model.get("anchor")), (found) => {
    const example = examples.findIndex(({ text }) => text === found.text);
    set(example < 0 ? found : { ...found, example });
  }, say);

  const changed = () => { showQuestion(); if (onPage) askEngine(); };
  const answered = () => {
    showQuestion();
    if (placesOf(model.get("text"), model.get("words"))) showAnswer(); // else a newer text is being read
  };
  const noted = () => say(model.get("note"));
  for (const name of QUESTION) model.on(`change:${name}`, changed);
  model.on("change:example", showQuestion);
  model.on("change:answered", answered);
  model.on("change:note", noted);
  answered();
  if (onPage) {
    const touches = ["pointerdown", "keydown", "focusin"];
    const touched = () => { for (const event of touches) root.removeEventListener(event, touched); warm(); };
    for (const event of touches) root.addEventListener(event, touched);
    window.addEventListener("hashchange", followLink);
    followLink();
  }
  return () => {
    gone = true;
    for (const timer of [patience, typing, speaking]) clearTimeout(timer);
    window.removeEventListener("hashchange", followLink);
    for (const name of QUESTION) model.off(`change:${name}`, changed);
    model.off("change:example", showQuestion);
    model.off("change:answered", answered);
    model.off("change:note", noted);
  };
}

export default { render };
