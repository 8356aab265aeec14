// Restore's user interface: a text that the reader damages, and a model that writes what was there.
// In a notebook the kernel answers; on a page of the site, the engine in the browser. An answer holds all words that the
// model writes: playing only shows them one by one.

import {
  ROOT, SILENT_KERNEL, check, choice, clip, copyLink, engine, fillWord, fitsLink, key, linkFollower, make, percent, waiter,
} from "./shared.mjs";

const BEAT = 600; // ms a word
const ABOUT = { // of each damage: its name, and what it does
  masking: ["Masking", "Some words become [MASK], one for one."],
  deletion: ["Deletion", "Some words are taken out, and nothing says where."],
  infilling: ["Infilling", "Each lost span, of any length or none, becomes one [MASK]."],
  permutation: ["Permutation", "The sentences stand in another order."],
  rotation: ["Rotation", "The text begins at another word; what stood before it comes last."],
  spans: ["Spans (T5)", "Each lost span becomes a sentinel. Sentinels and lost words are written."],
  mass: ["MASS", "A run of words becomes [MASK]s. Only that run is written."],
};
const DAMAGE = ["text", "kind", "rate", "seed"], QUESTION = [...DAMAGE, "look"];

export function writeLink(anchor, { text, kind, rate, seed, look }) {
  return `#${new URLSearchParams({ w: anchor, s: text, k: kind, r: rate ?? "", d: seed, l: look })}`;
}

/** The question in a fragment, without `look` in one that does not say it; null when it is not for this widget; throws
 *  when it cannot be read. */
export function readLink(fragment, anchor, kinds, looks) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  if (fields.get("w") !== anchor) return null;
  const [text, kind, share, dice] = ["s", "k", "r", "d"].map((name) => fields.get(name) ?? "");
  const rate = share ? Number(share) : null, look = fields.get("l");
  if (!fitsLink(text) || !kinds.includes(kind) || (rate !== null && !(rate > 0 && rate < 1))
    || !/^\d{1,5}$/.test(dice) || Number(dice) > 65535 || (look !== null && !looks.includes(look))) {
    throw new Error("The link's state could not be read, so the page shows its own.");
  }
  return { text, kind, rate, seed: Number(dice), ...(look !== null && { look }) };
}

/** Whose attention is shown, in words: of all heads it is the mean. */
export function lookName(look) {
  const [layer, head] = look.split(".");
  return `block ${layer}, ${head ? `head ${head}` : "all heads"}`;
}

const mark = (token) => /^(\[MASK\]|<extra_id_\d+>)$/.test(token);
const short = (token) => token.replace(/^<extra_id_(\d+)>$/, "<$1>");
const named = (token) => (token === null ? "nothing" : token === "[SEP]" ? "■ end" : short(token)); // of what is written

let views = 0;

function render({ model, el }) {
  const view = ++views, onPage = ROOT !== undefined;
  const [name, kinds, rates, looks, examples] = ["model_name", "kinds", "rates", "looks", "examples"].map((one) => model.get(one));
  const ask = onPage ? engine() : null;
  const question = () => Object.fromEntries(QUESTION.map((one) => [one, model.get(one)]));
  const rate = () => model.get("rate") ?? rates[model.get("kind")] ?? 0;
  const steps = () => model.get("steps"), shown = () => Math.min(model.get("shown"), steps().length);
  const initial = question();
  let chosen = null; // the written word that the reader looks at; null: the one that is being written
  let asked = 0, playing = null, patience, typing, speaking, gone = false;
  const now = () => Math.min(chosen ?? shown(), steps().length - 1);

  // The document.
  const button = (text, onclick, traits = {}) => make("button", { type: "button", onclick, ...traits }, text);
  const labelled = (label, input) => make("div", { class: "ss-own" }, make("label", { for: input.id, class: "ss-small" }, label), input);
  const ready = make("select", { id: `ss-ready-${view}`, onchange: () => set({ text: examples[ready.value] }) },
    make("option", { value: "", hidden: true }, "your own"), ...examples.map((text, i) => make("option", { value: i }, clip(text, 60))));
  const field = make("textarea", { rows: 3, dir: "auto", id: `ss-text-${view}`, maxlength: 10000, autocomplete: "off",
    autocapitalize: "off", spellcheck: "false", oninput: () => {
      stop();
      clearTimeout(typing);
      typing = setTimeout(() => set({ text: field.value }), 150);
    } });
  const ways = choice("Damage", `ss-kind-${view}`, Object.fromEntries(kinds.map((kind) => [kind, ABOUT[kind][0]])),
    (kind) => set({ kind, rate: null }));
  const about = make("p", { class: "ss-small ss-about" });
  const strength = make("output", { class: "ss-small" });
  const slider = make("input", { type: "range", id: `ss-rate-${view}`, min: 5, max: 90, step: 5, oninput: () => set({ rate: slider.value / 100 }) });
  const setting = make("div", { class: "ss-setting" }, make("label", { for: slider.id }, "Strength ", strength), slider);
  const buttons = make("div", { class: "ss-buttons" }, button("Damage again", () => set({ seed: (model.get("seed") + 1) % 65536 })),
    button("Reset", () => set(initial)));
  if (onPage) buttons.append(button("Copy link", () => copyLink(writeLink(model.get("anchor"), question()), [model.get("text")], say)));
  const note = make("p", { class: "ss-note", role: "status", hidden: true });
  const legend = make("div", { class: "ss-row ss-legend" }, key("seen", "x′"), key("hidden", "x″"), key("model", "the model"), key("truth", "✓ as in x″"));
  const status = make("p", { class: "ss-small ss-doing", role: "status" });
  legend.append(status);
  const list = (kind, label) => make("ul", { class: `ss-words ss-${kind}`, dir: "auto", "aria-label": label });
  const seenTitle = make("p", { class: "ss-small" }), seen = list("looked", "x′, with each token's share of the decoder's attention");
  const targetTitle = make("p", { class: "ss-small" }), target = list("target", "x″");
  const player = button("Play", () => (playing ? stop() : play()), { class: "ss-play" });
  const controls = [player, ...Object.entries({ "One word": () => shown() + 1, "To the end": () => steps().length, "Start again": () => 0 })
    .map(([text, count]) => button(text, () => { stop(); write(count()); }))];
  const told = make("p", { class: "ss-small" });
  const writtenTitle = make("p", { class: "ss-small" }, "What the decoder writes. Touch a word to see its choices and its attention:");
  const written = list("written", "What the decoder writes");
  const title = make("p", { class: "ss-title" }), body = make("tbody"), verdict = make("p", { class: "ss-loss" });
  const table = make("table", { class: "ss-bars", "aria-label": "The model's choices at this word" }, body);
  const head = make("select", { id: `ss-look-${view}`, onchange: () => set({ look: head.value }) },
    ...looks.map((look) => make("option", { value: look }, lookName(look))));
  const card = make("div", { class: "ss-card" }, title, table, verdict, labelled("Attention of", head));
  const spoken = make("p", { class: "ss-for-readers", "aria-live": "polite" });
  const sides = make("div", { class: "ss-sides" },
    make("div", {}, seenTitle, seen, targetTitle, target,
      make("div", { class: "ss-row ss-player" }, make("div", { class: "ss-buttons" }, ...controls), told), writtenTitle, written),
    card);
  const wait = waiter(sides, status);
  const root = make("section", { class: "selfsup ss-restore", "aria-label": "A damaged text and a model that restores it" },
    make("div", { class: "ss-texts" }, ...(examples.length ? [labelled("A text of Tinyworld", ready)] : []), labelled("x, the text: write your own", field)),
    make("div", { class: "ss-row" }, ways), about, make("div", { class: "ss-row ss-last" }, setting, buttons), note, legend,
    sides, spoken);
  root.dataset.lmSuppressShortcuts = "true"; // in JupyterLab, keys typed here are not commands
  el.replaceChildren(root);

  // Asking.
  function set(changes) {
    if ("text" in changes) {
      clearTimeout(typing);
      typing = null;
    }
    const asks = QUESTION.some((one) => one in changes && changes[one] !== model.get(one));
    for (const [one, value] of Object.entries(changes)) model.set(one, value);
    try { model.save_changes(); } catch { /* a page has nowhere to save to */ }
    showQuestion();
    if (!asks) return;
    wait("answering…");
    if (onPage) return;
    clearTimeout(patience);
    patience = setTimeout(() => { stop(); say(SILENT_KERNEL); }, 5000);
  }

  async function askEngine() {
    const number = ++asked;
    await Promise.resolve(); // traits that change together are one question
    if (number !== asked || gone) return;
    let found;
    try {
      const { text, ...rest } = question();
      found = await ask(name, { ...rest, damaged: text, rate: rate() }, false);
    } catch (error) {
      found = { words: [], seen: [], target: [], steps: [], note: `The model cannot answer: ${error.message}.` };
    }
    if (number !== asked || gone) return;
    for (const [one, value] of Object.entries(found)) model.set(one, value);
    model.set("answered", model.get("answered") + 1);
    try { model.save_changes(); } catch { /* as above */ }
  }

  /** Show the first `count` words that the model writes. */
  function write(count) {
    const until = Math.min(count, steps().length);
    chosen = null;
    if (until === model.get("shown")) showWriting();
    model.set("shown", until); // a change is shown by its listener
    try { model.save_changes(); } catch { /* as above */ }
  }

  function play() {
    if (shown() === steps().length) write(0);
    player.textContent = "Pause";
    playing = setInterval(() => {
      if (sides.getAttribute("aria-busy")) return; // another head is being asked for
      write(shown() + 1);
      if (shown() === steps().length) stop();
    }, BEAT);
  }

  function stop() {
    clearInterval(playing);
    playing = null;
    player.textContent = "Play";
    speak();
  }

  function lookAt(i) {
    if (playing) stop();
    chosen = i;
    showWriting();
  }

  // Showing.
  function say(text) {
    note.textContent = text;
    note.hidden = !text;
  }

  function showQuestion() {
    const kind = model.get("kind"), text = model.get("text");
    if (!typing && field.value !== text) field.value = text;
    ready.value = examples.indexOf(text);
    if (ready.selectedIndex < 0) ready.value = "";
    check(ways, kind);
    about.textContent = ABOUT[kind][1];
    slider.disabled = !rates[kind];
    slider.value = 100 * rate();
    const spans = kind === "infilling" || kind === "spans";
    strength.textContent = !rates[kind] ? "this damage has none" : `${spans ? "spans for " : ""}${percent(rate())} of the words${spans ? " (spans may meet)" : ""}${model.get("rate") === null ? "; the usual share" : ""}`;
    slider.setAttribute("aria-valuetext", strength.textContent);
    head.value = model.get("look");
  }

  /** What the answer says, before any word is written. */
  function showTexts() {
    const kind = model.get("kind"), part = kind === "spans" || kind === "mass";
    seen.replaceChildren(...model.get("seen").map((token) => {
      const box = make("span", { class: `ss-word${mark(token) ? " ss-touched" : ""}` });
      return make("li", {}, box);
    }));
    targetTitle.textContent = part ? "x″, what the decoder must write:" : "x″, what the decoder must write: the whole text, as it was.";
    target.hidden = !part;
    target.replaceChildren(...(part ? model.get("target") : []).map((token) => make("li", {},
      make("span", { class: `ss-word ss-answer${mark(token) ? " ss-token" : ""}` }, make("bdi", {}, named(token))))));
    written.replaceChildren(...steps().map((_, i) => make("li", {}, button("", () => lookAt(i), { onfocus: () => lookAt(i) }))));
  }

  const right = ({ word, true: real }) => word === real;
  const verdictOf = (step) => (right(step) ? "right" : `wrong, x″ has ${named(step.true)} here`);

  /** How far the writing is, and where the decoder looks. */
  function showWriting() {
    const list = steps(), count = shown(), at = now();
    [...written.children].forEach((item, i) => {
      const step = list[i], box = item.firstChild, done = i < count;
      item.style.visibility = i <= count ? "" : "hidden"; // it keeps its place, so that nothing moves
      const word = named(step.word), under = right(step) ? "✓" : `✗ ${named(step.true)}`;
      box.className = `ss-word ${done ? (right(step) ? "ss-right" : "ss-wrong") : "ss-writing"}`;
      box.setAttribute("aria-pressed", String(i === at));
      box.setAttribute("aria-label", done ? `${word}, ${verdictOf(step)}` : `word ${i + 1}, not yet written`);
      fillWord(box, word.length > under.length ? word : under, done ? word : "…", done ? under : "", mark(step.word));
    });
    const good = list.slice(0, count).filter(right).length, over = count === list.length && count > 0;
    told.textContent = !list.length ? "" : over
      ? good === list.length ? `Restored, all ${good} tokens.` : `Done: ${good} of ${count} tokens as in x″.`
      : count ? `${count} written, ${good} as in x″.` : "Nothing is written yet.";
    for (const control of controls) control.disabled = !list.length;
    showStep(list[at], at, count);
    speak();
  }

  /** The choices and the attention at one word. */
  function showStep(step, at, count) {
    const words = (tokens) => tokens.filter((token) => !mark(token) && token !== "[CLS]" && token !== "[SEP]").length;
    const all = words(model.get("words")), lost = all - words(model.get("seen"));
    seenTitle.textContent = `x′, what the encoder reads${lost ? `: ${lost} of ${all} words are gone` : ""}${step ? `. Shaded: where the decoder looks for word ${at + 1}` : ""}:`;
    [...seen.children].forEach((item, i) => {
      const token = model.get("seen")[i], box = item.firstChild, share = step?.look[i] ?? 0;
      box.style.setProperty("--share", `${Math.round(85 * Math.sqrt(share))}%`); // so that small shares can be told apart
      fillWord(box, short(token), short(token), share >= 0.01 ? `${Math.round(100 * share)}%` : "", mark(token) || /^\[/.test(token));
    });
    card.hidden = !step;
    if (!step) return;
    title.replaceChildren(`Word ${at + 1}`, make("span", { class: "ss-small" }, at < count ? ", written" : ", not yet written"));
    body.replaceChildren(...step.chances.map(([token, p]) => {
      const bar = make("span", { class: "ss-bar ss-bar-model" });
      bar.hidden = p === 0;
      bar.style.width = `${100 * p}%`;
      const real = token === step.true, label = make("th", { scope: "row", title: token }, make("bdi", {}, clip(named(token))));
      if (real) label.prepend("▸ ");
      return make("tr", { class: real ? "ss-real" : "" }, label, make("td", { "aria-hidden": "true" }, bar),
        make("td", {}, make("span", { class: "ss-number ss-model-text" }, percent(p))));
    }));
    verdict.replaceChildren(...(step.true === null ? ["x″ has ended here."] : ["▸ x″ has ", make("bdi", { class: "ss-hidden-text" }, named(step.true)), " here."]));
  }

  function speak() {
    clearTimeout(speaking);
    if (playing) return; // what passes in half a second is not read aloud
    speaking = setTimeout(() => {
      const step = steps()[now()];
      if (!step) return;
      const most = step.look.map((share, i) => [share, model.get("seen")[i]]).sort(([a], [b]) => b - a).slice(0, 3)
        .map(([share, token]) => `${token} ${Math.round(100 * share)}%`).join(", ");
      const last = steps()[chosen ?? shown() - 1], word = last ? `${named(last.word)}, ${verdictOf(last)}. ` : "";
      spoken.textContent = `${word}For word ${now() + 1} the decoder looks at ${most}. ${chosen === null ? told.textContent : ""}`;
    }, 250);
  }

  function answered() {
    clearTimeout(patience);
    wait("");
    showQuestion();
    say(model.get("note"));
    const focused = [...written.children].findIndex((item) => item.contains(document.activeElement));
    showTexts();
    showWriting();
    if (focused >= 0) written.children[focused]?.firstChild.focus();
  }

  const warm = () => { if (onPage) ask(name, null, false).catch(() => {}); };
  const followLink = linkFollower(root, (hash) => readLink(hash, model.get("anchor"), kinds, looks), set, say);

  const changed = () => { showQuestion(); if (onPage) askEngine(); };
  const anew = () => { // another writing begins with its first word
    stop();
    chosen = null;
    model.set("shown", 0);
  };
  const noted = () => say(model.get("note"));
  for (const one of QUESTION) model.on(`change:${one}`, changed);
  for (const one of DAMAGE) model.on(`change:${one}`, anew);
  model.on("change:shown", showWriting);
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
    for (const one of QUESTION) model.off(`change:${one}`, changed);
    for (const one of DAMAGE) model.off(`change:${one}`, anew);
    model.off("change:shown", showWriting);
    model.off("change:answered", answered);
    model.off("change:note", noted);
  };
}

export default { render };
