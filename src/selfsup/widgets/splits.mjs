// SplitPlayground: one text and the ways to take it apart. All of it is computed here, with and without a kernel.

import { make } from "./shared.mjs";

const LONGEST = 2000;
const MOST_WORDS = 60;

/** Words and marks; a text of any alphabet, [MASK] kept whole. */
export const wordsOf = (text) =>
  (text.slice(0, LONGEST).match(/\[MASK\]|[\p{Script=Han}]|[\p{L}\p{N}\p{M}']+|[^\s\p{L}\p{N}\p{M}]/gu) ?? []).slice(0, MOST_WORDS);

/** Lists of words, each ending with its full stop. */
export function sentencesOf(words) {
  const sentences = [[]];
  words.forEach((word, at) => {
    sentences.at(-1).push(word);
    if (/^[.!?。！？]$/u.test(word) && at + 1 < words.length) sentences.push([]);
  });
  return sentences;
}

/** Random numbers in [0, 1) that a seed decides (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
}

const plain = (words) => words.map((word) => ({ word }));

// Each way: x′ as tokens ({word, changed}), x″ as tokens, how many answers, how many to choose from, what must be known.
export const SPLITS = {
  label: {
    name: "A person's label",
    about: "A person reads the text and says whether it ends well. Nothing is hidden: the answer is not in x, so somebody has to give it.",
    split: (words) => ({ seen: plain(words), hidden: [], targets: 0, from: "a person" }),
  },
  masking: {
    name: "Masked words",
    about: "About 15% of the words are covered. To get them back, a model needs the words on both sides.",
    split(words, roll) {
      const chosen = words.map(() => roll() < 0.15);
      if (words.length && !chosen.includes(true)) chosen[Math.floor(roll() * words.length)] = true;
      const seen = words.map((word, at) => (chosen[at] ? { word: "[MASK]", changed: true } : { word }));
      const hidden = words.filter((_, at) => chosen[at]);
      return { seen, hidden, targets: hidden.length, from: "any word of the vocabulary, for each [MASK]" };
    },
  },
  next: {
    name: "Next word",
    about: "At each place the model sees the words so far and must say the next one. x″ is x, moved by one place.",
    split(words) {
      const seen = [{ word: "[BOS]", changed: true }, ...plain(words.slice(0, -1))];
      return { seen, hidden: words, targets: words.length, from: "any word of the vocabulary, at each place" };
    },
  },
  order: {
    name: "Sentence order",
    about: "Two neighbouring sentences, exchanged or not. To tell, a model must know what usually comes first.",
    split(words, roll) {
      const sentences = sentencesOf(words);
      if (sentences.length < 2) return { seen: plain(words), hidden: [], targets: 0, from: "", missing: "This split needs two sentences: type one more." };
      const at = Math.floor(roll() * (sentences.length - 1));
      const exchanged = roll() < 0.5;
      const [first, second] = sentences.slice(at, at + 2);
      const pair = exchanged ? [second, first] : [first, second];
      const seen = [...plain(pair[0]), { word: "[SEP]", changed: true }, ...plain(pair[1])];
      return { seen, hidden: [exchanged ? "exchanged" : "in order"], targets: 1, from: "two answers: in order, exchanged" };
    },
  },
  rotation: {
    name: "Rotation",
    about: "The text is cut at a random place and its two parts change places. The model must find the true beginning.",
    split(words, roll) {
      if (words.length < 2) return { seen: plain(words), hidden: words, targets: words.length, from: "one place" };
      const cut = 1 + Math.floor(roll() * (words.length - 1));
      const seen = [...words.slice(cut), ...words.slice(0, cut)].map((word) => ({ word }));
      return { seen, hidden: [`it begins at word ${words.length - cut + 1}: “${words[0]}”`], targets: 1, from: `${words.length} places` };
    },
  },
  span: {
    name: "A lost part",
    about: "Some neighbouring words become a single [MASK]. How many are lost is hidden too, and the model must write them all.",
    split(words, roll) {
      const length = Math.min(words.length, 2 + Math.floor(roll() * 3));
      const start = Math.floor(roll() * (words.length - length + 1));
      const seen = [...plain(words.slice(0, start)), { word: "[MASK]", changed: true }, ...plain(words.slice(start + length))];
      return { seen, hidden: words.slice(start, start + length), targets: length, from: "any words, and any number of them" };
    },
  },
};

/** What the way called `name` makes of a text. Pure: equal seeds, equal splits. */
export function split(text, name, seed) {
  const words = wordsOf(text);
  if (!words.length) return { words, seen: [], hidden: [], targets: 0, from: "", missing: "There is nothing to take apart yet: type a sentence." };
  return { words, ...SPLITS[name].split(words, random(seed)) };
}

let views = 0;

function render({ model, el }) {
  const view = ++views;
  const initial = { text: model.get("text"), objective: model.get("objective"), seed: model.get("seed") };
  let label = null, typing;

  const options = make("div", { class: "ss-options" });
  for (const [value, { name }] of Object.entries(SPLITS)) {
    const input = make("input", { type: "radio", name: `ss-split-${view}`, value, onchange: () => set({ objective: value }) });
    options.append(make("label", {}, input, make("span", {}, name)));
  }
  const ways = make("fieldset", { class: "ss-choice" }, make("legend", {}, "The answer comes from"), options);
  const field = make("input", { type: "text", dir: "auto", id: `ss-split-text-${view}`, maxlength: LONGEST, autocomplete: "off", spellcheck: "false",
    oninput: () => { clearTimeout(typing); typing = setTimeout(() => { label = null; set({ text: field.value }); }, 150); } });
  const own = make("div", { class: "ss-own" }, make("label", { for: field.id, class: "ss-small" }, "x, a text of your own"), field);
  const again = make("button", { type: "button", onclick: () => set({ seed: (model.get("seed") + 1) % 65536 }) }, "Split again");
  const reset = make("button", { type: "button", onclick: () => { label = null; set(initial); } }, "Reset");
  const about = make("p", { class: "ss-row" });
  const note = make("p", { class: "ss-note", role: "status", hidden: true });
  const seenName = make("p", { class: "ss-small" });
  const seen = make("ul", { class: "ss-words", dir: "auto" });
  const hiddenName = make("p", { class: "ss-small" });
  const hidden = make("ul", { class: "ss-words", dir: "auto" });
  const person = make("div", { class: "ss-buttons ss-row" });
  const sum = make("p", { class: "ss-sum", "aria-live": "polite" });
  for (const verdict of ["it ends well", "it ends badly"]) {
    person.append(make("button", { type: "button", "aria-pressed": "false", onclick: () => { label = label === verdict ? null : verdict; show(); } }, verdict));
  }
  const root = make("section", { class: "selfsup ss-splits", "aria-label": "Ways to take a text apart" },
    make("div", { class: "ss-row" }, ways), make("div", { class: "ss-row ss-last" }, own, make("div", { class: "ss-buttons" }, again, reset)),
    about, note, seenName, seen, hiddenName, hidden, person, sum);
  el.replaceChildren(root);

  function set(changes) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    try { model.save_changes(); } catch { /* a page has nowhere to save to */ }
    show();
  }

  const chip = (word, kind) => {
    const box = make("span", { class: `ss-word${kind === "covered" ? " ss-touched" : ""}${kind === "hidden" ? " ss-answer" : ""}` },
      make("span", { class: kind === "covered" ? "ss-seen ss-token" : "ss-seen" }, make("bdi", {}, word)));
    if (kind === "hidden") box.style.cssText = "border: 2px dashed var(--hidden); background: none; color: var(--hidden-text); font-weight: 600";
    if (kind === "outside") box.style.cssText = "border: 2px dotted var(--soft-ink); background: none; font-weight: 600";
    return make("li", {}, box);
  };

  function show() {
    const name = model.get("objective"), byPerson = name === "label";
    const found = split(model.get("text"), name, model.get("seed"));
    for (const input of options.querySelectorAll("input")) input.checked = input.value === name;
    if (document.activeElement !== field) field.value = model.get("text");
    about.textContent = SPLITS[name].about;
    note.textContent = found.missing ?? "";
    note.hidden = !found.missing;
    seenName.textContent = byPerson ? "x, all of which the model sees" : "x′, what the model sees";
    seen.replaceChildren(...found.seen.map(({ word, changed }) => chip(word, changed ? "covered" : "seen")));
    hiddenName.textContent = byPerson ? "ŷ, the label: you are the person. How does it end?" : "x″, what it must say";
    hidden.replaceChildren(...(byPerson ? [chip(label ?? "no label yet", "outside")] : found.hidden.map((word) => chip(word, "hidden"))));
    person.hidden = !byPerson;
    for (const button of person.children) button.setAttribute("aria-pressed", String(button.textContent === label));
    again.disabled = byPerson || name === "next";
    const targets = byPerson ? Number(label !== null) : found.targets;
    sum.textContent = `This text gives ${targets} ${targets === 1 ? "answer" : "answers"} to learn from` +
      (byPerson ? `; a person gave ${targets ? "it" : "none so far"}.` : `, chosen from ${found.from}. Nobody wrote a label.`);
    if (found.missing) sum.textContent = "";
    model.set("seen", found.seen.map(({ word }) => word));
    model.set("hidden", byPerson ? (label ? [label] : []) : found.hidden);
    model.set("targets", targets);
    try { model.save_changes(); } catch { /* as above */ }
  }

  const changed = () => show();
  for (const name of ["text", "objective", "seed"]) model.on(`change:${name}`, changed);
  show();
  return () => {
    clearTimeout(typing);
    for (const name of ["text", "objective", "seed"]) model.off(`change:${name}`, changed);
  };
}

export default { render };
