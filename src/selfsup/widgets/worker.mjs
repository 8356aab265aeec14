// Answers the widgets' questions with the engine, away from the page's own thread.
// The kernel answers the same questions with the same words: `answer` mirrors `answer` in __init__.py, `judge` mirrors
// `judge` in pairs.py, `consult` mirrors `consult` in specialists.py, `nextWord` mirrors `next_word` in next_word.py, and
// `restore` mirrors `restore` in restore.py.

import { damage, places, sentences } from "./damage.mjs";

export const MOST_WORDS = 64;
const SEED_STEP = 7919, PIECE_STEP = 104729;

/** What the model sees for one touched word: [MASK]s, random tokens (fixed by the seed), or the word itself. */
function corrupt(ids, { kind, seed = 0, word }, { tokenizer, ordinary, mask }) {
  if (kind === "mask") return ids.map(() => mask);
  if (kind === "unchanged") return ids;
  if (word !== undefined) {
    const chosen = tokenizer.words(word).flatMap((part) => part.ids);
    if (chosen.length !== ids.length) {
      throw new Error(`the replacement “${clip(word)}” has ${chosen.length} pieces, not the word's ${ids.length}`);
    }
    return chosen;
  }
  return ids.map((id, piece) => {
    const index = seed * SEED_STEP + piece * PIECE_STEP;
    const token = ordinary[index % ordinary.length];
    return token === id ? ordinary[(index + 1) % ordinary.length] : token;
  });
}

function best(probabilities, count) {
  const order = Array.from(probabilities.keys());
  const chosen = [];
  for (let n = 0; n < count && n < order.length; n++) {
    let top = -1;
    for (const id of order) if (!chosen.includes(id) && (top < 0 || probabilities[id] > probabilities[top])) top = id;
    chosen.push(top);
  }
  return chosen;
}

const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);

/** @param {object} question  {sentence, touched: [{position, kind, seed?, word?}], top}
 *  @param {object} parts  {model: Bert, tokenizer, language?: Tinyworld, softmax}
 *  @returns {object} the traits of the answer: words, predictions, truth, cross_entropy, floor, note */
export function answer({ sentence, touched, top }, { model, tokenizer, language, softmax }) {
  const notes = [];
  const [mask, unknown] = [tokenizer.id("[MASK]"), tokenizer.id("[UNK]")];
  const special = new Set(tokenizer.special.map((token) => tokenizer.id(token)));
  const ordinary = tokenizer.tokens.flatMap((_, id) => (special.has(id) ? [] : [id]));
  const all = tokenizer.words(sentence);
  const kept = [];
  let room = model.config.max_position_embeddings - 2;
  for (const word of all.slice(0, MOST_WORDS)) {
    if (word.ids.length > room) break;
    room -= word.ids.length;
    kept.push(word);
  }
  if (kept.length < all.length) notes.push(`The model reads the first ${kept.length} of ${all.length} words.`);
  if (!kept.length) notes.push("There is no word to mask yet: type a sentence.");

  const chosen = new Map(touched.filter(({ position }) => position < kept.length).map((one) => [one.position, one]));
  kept.forEach((word, position) => {
    if (word.ids[0] === mask) chosen.set(position, { position, kind: "mask", given: true });
  });
  const ids = [tokenizer.id("[CLS]")], asked = [];
  const words = kept.map(({ text, ids: real }, position) => {
    const one = chosen.get(position);
    const seen = one ? corrupt(real, one, { tokenizer, ordinary, mask }) : real;
    seen.forEach((id, piece) => {
      if (one) {
        const known = !one.given && real[piece] !== unknown;
        asked.push({ at: ids.length, position, piece, real: known ? real[piece] : null });
      }
      ids.push(id);
    });
    const names = (list) => list.map((id) => tokenizer.tokens[id]);
    return { text, pieces: names(real), seen: names(seen), kind: one?.kind ?? "", given: one?.given ?? false };
  });
  ids.push(tokenizer.id("[SEP]"));

  const strangers = [...new Set(kept.filter(({ ids: real }) => real[0] === unknown).map(({ text }) => text))];
  if (strangers.length) {
    notes.push(`The model does not know ${quote(strangers)}: it reads [UNK] there.`);
  }
  let exact = null;
  if (language && kept.length) {
    try {
      const tokens = kept.map(({ ids: real }) => tokenizer.tokens[real[0]]);
      const hidden = Array.from(chosen.keys()).sort((a, b) => a - b);
      if (strangers.length && kept.some(({ ids: real }, at) => real[0] === unknown && !chosen.has(at))) {
        notes.push("Impossible in Tinyworld: that language has no such word.");
      } else if (hidden.length) exact = language.posterior(tokens, hidden);
    } catch (error) {
      if (error.name !== "Impossible") throw error;
      notes.push(impossible(error, kept));
    }
  }

  const rows = Array.from(asked.length ? model.logits(ids, asked.map(({ at }) => at)) : [], softmax);
  const hiddenRows = Array.from(chosen.keys()).sort((a, b) => a - b);
  const predictions = [], truth = [];
  asked.forEach(({ position, piece, real }, index) => {
    const model = rows[index], exactly = exact?.[hiddenRows.indexOf(position)];
    const shown = new Set(best(model, top));
    if (exactly) for (const id of best(exactly, top)) if (exactly[id]) shown.add(id);
    if (real !== null) shown.add(real);
    const entry = (probabilities) => ({
      position,
      piece,
      real: real === null ? null : tokenizer.tokens[real],
      loss: real === null || !probabilities[real] ? null : -Math.log(probabilities[real]),
      top: Array.from(shown).sort((a, b) => probabilities[b] - probabilities[a] || a - b)
        .map((id) => [tokenizer.tokens[id], probabilities[id]]),
    });
    predictions.push(entry(model));
    if (exactly) truth.push(entry(exactly));
  });
  const never = truth.find(({ real, loss }) => real !== null && loss === null);
  if (never) notes.push(impossible(never, kept));
  const losses = (list) => list.map(({ loss }) => loss).filter((loss) => loss !== null);
  return {
    words,
    predictions,
    truth,
    cross_entropy: mean(losses(predictions)),
    floor: never ? null : mean(losses(truth)),
    note: notes.join(" "),
  };
}

function quote(words) {
  const shown = words.slice(0, 3).map((word) => `“${clip(word)}”`).join(", ");
  return words.length > 3 ? `${shown} and ${words.length - 3} more` : shown;
}

function clip(word) {
  const letters = Array.from(word);
  return letters.length > 24 ? `${letters.slice(0, 24).join("")}…` : word;
}

function impossible({ position }, words) {
  const word = words[position]?.text, cannot = position ? "follow the words before it" : "begin a text";
  return word === undefined
    ? "Impossible in Tinyworld: the text stops where no sentence can end."
    : `Impossible in Tinyworld: “${clip(word)}” (word ${position + 1}) cannot ${cannot}.`;
}

const MOST_OF_A_SENTENCE = 40;

/** @param {object} question  {a, b, about}: two sentences, and "next" or "order"
 *  @param {object} parts  {model: Bert, tokenizer, language?: Tinyworld, pairs?: Pairs, softmax}
 *  @returns {object} {model: P(as it was), exact: the same by kind, or null, note}; null where there is no answer */
export function judge({ a, b, about }, { model, tokenizer, pairs, softmax }) {
  const texts = [a, b].map((text) => tokenizer.words(text));
  const [first, second] = texts.map((words) => words.slice(0, MOST_OF_A_SENTENCE));
  if (!first.length || !second.length) return { model: null, exact: null, note: "Two sentences are needed: type one more." };
  const notes = [];
  if (texts.some((words) => words.length > MOST_OF_A_SENTENCE)) {
    notes.push(`The model reads the first ${MOST_OF_A_SENTENCE} words of each.`);
  }
  const [cls, sep, unknown] = ["[CLS]", "[SEP]", "[UNK]"].map((token) => tokenizer.id(token));
  const [left, right] = [first, second].map((words) => words.flatMap(({ ids }) => ids));
  const ids = [cls, ...left, sep, ...right, sep];
  const segments = ids.map((_, t) => Number(t > left.length + 1));
  const chance = softmax(model.pair(ids, segments))[0];
  const strangers = [...new Set([...first, ...second].filter((word) => word.ids[0] === unknown).map(({ text }) => text))];
  if (strangers.length) notes.push(`The model does not know ${quote(strangers)}: it reads [UNK] there.`);
  let exact = null;
  if (pairs) {
    const [one, two] = [left, right].map((tokens) => tokens.map((id) => tokenizer.tokens[id]));
    const known = [one, two].map((tokens) => pairs.says(tokens));
    if (known.includes(false)) {
      notes.push(`Impossible in Tinyworld: ${known[0] ? "B" : "A"} is no sentence of that language.`);
    } else exact = about === "next" ? nextOf(pairs, one, two) : orderOf(pairs, one, two);
  }
  return { model: chance, exact, note: notes.join(" ") };
}

function nextOf(pairs, a, b) {
  if (!pairs.inARow(a, b) && !pairs.apart(a, b, "anywhere")) return null;
  const asked = (kind) => (pairs.inARow(a, b) || pairs.apart(a, b, kind) ? pairs.isNext(a, b, kind) : null);
  return Object.fromEntries(["place", "topic", "anywhere"].map((kind) => [kind, asked(kind)]));
}

function orderOf(pairs, a, b) {
  return pairs.inARow(a, b) || pairs.inARow(b, a) ? { order: pairs.inOrder(a, b) } : null;
}

const MOST_OF_A_LINE = 20, LONGEST_SPAN = 8;

/** @param {object} question  {text, statement, query, forms}: what is read, said and asked of it
 *  @param {object} parts  {specialists: {task: {model, classes}}, tokenizer, language?: Tinyworld, softmax}
 *  @returns {object} the traits of the answer: words, sentiment, tags, entailment, found, note */
export function consult({ text, statement, query, forms }, { specialists, tokenizer, language, softmax }) {
  const [cls, sep, unknown] = ["[CLS]", "[SEP]", "[UNK]"].map((token) => tokenizer.id(token));
  const longest = specialists.tags.model.config.max_position_embeddings - MOST_OF_A_LINE - 3;
  const most = [Math.min(MOST_WORDS, longest), MOST_OF_A_LINE, MOST_OF_A_LINE];
  const all = [text, statement, query].map((one) => tokenizer.words(one));
  const kept = all.map((words, i) => words.slice(0, most[i]));
  const [read, said, asked] = kept.map((words) => words.map(({ ids }) => ids[0]));
  const tokens = (ids) => ids.map((id) => tokenizer.tokens[id]);
  const notes = [];
  if (read.length < all[0].length) notes.push(`The model reads the first ${read.length} of ${all[0].length} words.`);
  if (all.slice(1).some((words) => words.length > MOST_OF_A_LINE)) {
    notes.push(`The model reads the first ${MOST_OF_A_LINE} words of a statement or a question.`);
  }
  if (!read.length) notes.push("There is no text yet: type one.");
  const strangers = [...new Set(kept.flat().filter(({ ids }) => ids[0] === unknown).map((word) => word.text))];
  if (strangers.length) notes.push(`The model does not know ${quote(strangers)}: it reads [UNK] there.`);

  let mood = null, chance = null;
  if (language && read.length) {
    try {
      if (read.includes(unknown)) notes.push("Impossible in Tinyworld: that language has no such word.");
      else {
        const { values } = language.registers.find(({ name }) => name === "mood");
        const exact = language.register(tokens(read), "mood");
        mood = specialists.sentiment.classes.map((name) => exact[values.indexOf(name)]);
        chance = chanceOf(tokens(said).join(" "), forms, language, tokens(read));
      }
    } catch (error) {
      if (error.name !== "Impossible") throw error;
      notes.push(impossible(error, kept[0]));
    }
  }

  const logits = (task, first, second, whole) => {
    const ids = [cls, ...first, sep, ...(second ? [...second, sep] : [])];
    return specialists[task].model.classify(ids, ids.map((_, t) => Number(t > first.length + 1)), whole);
  };
  const told = (task, second, exact) => ({
    classes: specialists[task].classes, model: Array.from(softmax(logits(task, read, second, true)[0])), exact,
  });
  const tags = !read.length ? [] : logits("tags", read).slice(1, -1).map(softmax).map((chances) => {
    const top = best(chances, 1)[0];
    return [specialists.tags.classes[top], chances[top]];
  });
  const relation = chance === null ? null : [chance > 1 - 1e-6, chance >= 1e-9 && chance <= 1 - 1e-6, chance < 1e-9];
  return {
    words: kept[0].map((word) => word.text),
    sentiment: read.length ? told("sentiment", null, mood) : null,
    tags,
    entailment: read.length && said.length ? { ...told("entailment", said, relation?.map(Number) ?? null), chance } : null,
    found: read.length && asked.length ? find(logits("questions", asked, read), asked.length + 2, read.length, softmax) : null,
    note: notes.join(" "),
  };
}

/** P(the statement is true | the text); null for one of no form, or that no topic the text may have tells of. */
function chanceOf(said, forms, language, read) {
  for (const { name, topics, form, words } of forms) {
    const values = words.flatMap((word, value) => (form.replace("{}", word) === said ? [value] : []));
    if (!values.length) continue;
    const topic = language.topic(read), exact = language.register(read, name);
    return !topics.some((one) => topic[one]) ? null : values.reduce((total, value) => total + exact[value], 0);
  }
  return null;
}

/** The likeliest span of words: {span: [first, last + 1], or [] where the text does not say, p}. */
function find(logits, start, length, softmax) {
  const spans = [[]], scores = [logits[0][0] + logits[0][1]]; // both at [CLS]
  for (let first = 0; first < length; first++) {
    for (let end = first + 1; end <= Math.min(length, first + LONGEST_SPAN); end++) {
      spans.push([first, end]);
      scores.push(logits[start + first][0] + logits[start + end - 1][1]);
    }
  }
  const chances = softmax(scores), top = chances.indexOf(Math.max(...chances));
  return { span: spans[top], p: chances[top] };
}

const WIDTH = 3, DEPTH = 3, LEAST = 0.01; // of the tree of alternatives, and of a branch
const contexts = new WeakMap(); // of each language model, the text that it read last, and its cache

/** The logits after a text; what it shares with the one before is not read again. */
function after(model, ids, { cut }) {
  const { read, cache } = contexts.get(model) ?? { read: [], cache: model.start() };
  let same = 0;
  while (same < Math.min(read.length, ids.length - 1) && read[same] === ids[same]) same++;
  contexts.delete(model); // until it is whole again
  cut(cache, same);
  const logits = model.next(ids.slice(same), cache);
  contexts.set(model, { read: ids, cache });
  return logits;
}

/** @param {object} question  {beginning, growing}: a text, and whether its tree of alternatives is asked for
 *  @param {object} parts  {model: Gpt, tokenizer, language?: Tinyworld, softmax, code: the engine}
 *  @returns {object} the traits of the answer: words, logits, truth, tree, note */
export function nextWord({ beginning, growing }, { model, tokenizer, language, softmax, code }) {
  const [cls, end, unknown] = ["[CLS]", "[SEP]", "[UNK]"].map((token) => tokenizer.id(token));
  const never = tokenizer.special.map((token) => tokenizer.id(token)).filter((id) => id !== end);
  const read = tokenizer.words(beginning), ids = read.flatMap((word) => word.ids);
  const words = ids.map((id) => tokenizer.tokens[id]), room = model.config.n_positions - 1 - DEPTH;
  const found = { words, logits: [], truth: [], tree: [], note: "" };
  if (ids.length > room) {
    const note = `The text has ${ids.length} words, and the model reads at most ${room}: take some back.`;
    return { ...found, words: words.slice(0, room), note };
  }
  const notes = [], strangers = [...new Set(read.filter((word) => word.ids[0] === unknown).map(({ text }) => text))];
  if (strangers.length) notes.push(`The model does not know ${quote(strangers)}: it reads [UNK] there.`);
  const truthOf = (tokens, trouble) => {
    try { return language.nextWord(tokens); } catch (error) {
      if (error.name !== "Impossible") throw error;
      trouble?.(error);
      return null;
    }
  };
  let exact = null;
  if (language && strangers.length) notes.push("Impossible in Tinyworld: that language has no such word.");
  else if (language) exact = truthOf(words, (error) => notes.push(impossible(error, read)));

  /** The likeliest continuations of a text, each with its own. */
  function branches(prefix, logits, depth) {
    const chances = softmax(Array.from(logits, (logit, id) => (never.includes(id) ? -Infinity : logit)));
    const truth = language && truthOf(prefix.slice(1).map((id) => tokenizer.tokens[id]));
    return best(chances, WIDTH).filter((id, n) => !n || chances[id] >= LEAST).map((id) => {
      const longer = [...prefix, id], on = depth > 1 && id !== end;
      return { id, p: chances[id], exact: truth ? truth[id] : null, next: on ? branches(longer, after(model, longer, code), depth - 1) : [] };
    });
  }

  const whole = [cls, ...ids], logits = after(model, whole, code);
  const tree = growing ? branches(whole, logits, DEPTH) : [];
  const rounded = Array.from(logits, (logit) => Math.round(logit * 1e4) / 1e4);
  return { ...found, logits: rounded, truth: exact ? Array.from(exact) : [], tree, note: notes.join(" ") };
}

const TOP = 5, EXTRA = 10; // choices a word; words more than x″ has, after which the model is stopped

/** @param {object} question  {damaged, kind, rate, seed, look}: a text, what is done to it, and whose attention is told
 *  @param {object} parts  {model: Bart, tokenizer, softmax}
 *  @returns {object} the traits of the answer: words, seen, target, steps, note */
export function restore({ damaged, kind, rate, seed, look }, { model, tokenizer, softmax }) {
  const [pad, unknown, cls, end, mask] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map((token) => tokenizer.id(token));
  const idsOf = (tokens) => tokens.flatMap((token) => tokenizer.vocab.get(token) ?? []);
  const sentinels = idsOf(tokenizer.special.filter((token) => token.startsWith("<extra_id_"))).sort((a, b) => a - b);
  const marks = { mask, sentinels, fullStops: idsOf([".", "!", "?"]), quote: tokenizer.vocab.get('"') };
  const never = [pad, unknown, cls, mask], strange = [pad, cls, end, ...sentinels];
  const names = (ids) => ids.map((id) => tokenizer.tokens[id]);
  const read = tokenizer.words(damaged), all = read.flatMap((word) => word.ids).filter((id) => !strange.includes(id));
  const room = Math.floor((model.config.max_position_embeddings - EXTRA - 2) / 2), ids = all.slice(0, room), notes = [];
  if (ids.length < all.length) notes.push(`The model reads the first ${room} of ${all.length} words.`);
  const strangers = [...new Set(read.filter((word) => word.ids[0] === unknown).map(({ text }) => text))];
  if (strangers.length) notes.push(`The model does not know ${quote(strangers)}: it reads [UNK] there.`);
  if (ids.includes(mask)) notes.push("A [MASK] of your own has no true word.");
  if (kind === "permutation" && sentences(ids, marks).length === 1) notes.push("A permutation needs two sentences: write one more.");
  if (kind === "rotation" && ids.length === 1) notes.push("A rotation needs two words: write one more.");
  if (!ids.length) {
    notes.push("There is no text to damage yet: write one.");
    return { words: [], seen: [], target: [], steps: [], note: notes.join(" ") };
  }

  const { seen, target, before } = damage(ids, kind, rate, seed, marks), known = kind === "mass";
  const x = [cls, ...seen, end], memory = model.read(x), cache = model.start();
  const [layer, head] = look.split("."), told = known ? target : [...target, end];
  const written = [], steps = [];
  let next = [cls, ...Array(before).fill(mask)];
  while (written.length < target.length + (known ? 0 : EXTRA) && next[0] !== end) {
    const looks = [], logits = model.next(next, memory, cache, false, looks);
    const chances = softmax(Array.from(logits, (logit, id) => (never.includes(id) ? -Infinity : logit)));
    const heads = looks[layer - 1].map((one) => one.subarray(-x.length)), some = head ? [heads[head - 1]] : heads;
    const share = x.map((_, k) => some.reduce((sum, one) => sum + one[k], 0) / some.length);
    const top = best(chances, TOP);
    steps.push({ top, chances, look: share.map((one) => Math.round(one * 1e4) / 1e4) });
    written.push(top[0]);
    next = [top[0]];
  }
  const where = kind === "mass" ? [...written.keys()] : places(written, told); // MASS is told where its words stand
  if (!known && written.at(-1) !== end) notes.push(`The model finds no end: it was stopped after ${written.length} words.`);
  return {
    words: names(ids), seen: names(x), target: names(told), note: notes.join(" "),
    steps: steps.map(({ top, chances, look }, i) => {
      const real = told[where[i]];
      if (real !== undefined && !top.includes(real)) top[TOP - 1] = real;
      return { word: tokenizer.tokens[written[i]], true: tokenizer.tokens[real] ?? null,
        chances: top.map((id) => [tokenizer.tokens[id], chances[id]]), look };
    }),
  };
}

const loaded = new Map();

async function get(url, kind) {
  const { pathname } = new URL(url), response = await fetch(url).catch(() => ({ status: "no connection" }));
  if (!response.ok) throw new Error(`could not fetch ${pathname} (${response.status}); check the connection and try again`);
  return response[kind]();
}

async function module(url) {
  try {
    return await import(url);
  } catch (error) {
    await get(url, "text"); // a TypeError may be a lost connection, and may be the module's own
    throw new Error(`could not run ${new URL(url).pathname} (${error.message})`);
  }
}

/** What all weights of a checkpoint share. assets: addresses {engine, config, weights, tokenizer, world?, tinyworld?} */
async function loadShared({ engine, config, tokenizer, world, tinyworld }) {
  const [code, settings, words, grammar, language] = await Promise.all([
    module(engine), get(config, "json"), get(tokenizer, "json"), world && get(world, "json"), tinyworld && module(tinyworld),
  ]);
  const parts = { code, settings, tokenizer: new code.Tokenizer(words), softmax: code.softmax };
  if (language) {
    parts.language = language.loadLanguage(grammar);
    parts.pairsOf = () => new language.Pairs(grammar);
    const known = parts.tokenizer.tokens.filter((token) => !parts.tokenizer.special.includes(token));
    if (known.join(" ") !== parts.language.words.join(" ")) throw new Error("the model and Tinyworld have other words");
  }
  return parts;
}

async function load(assets) {
  const [shared, bytes] = await Promise.all([
    once(keyOf(assets.tokenizer, assets), () => loadShared(assets)), get(assets.weights, "arrayBuffer"),
  ]);
  const model = shared.code.modelOf(shared.settings, bytes);
  if (model.logits) model.logits([0, 1, 2, 3], [1]); // the first run compiles
  else if (model.start) model.next([0, 1, 2, 3], ...(model.read ? [model.read([0, 1, 2, 3])] : []));
  return { ...shared, model, pairs: model.relation && shared.pairsOf?.() };
}

/** The model of `parts` once for each adapter, with the names of the classes. */
async function loadSpecialists({ adapters }, { code, model }) {
  const found = Object.entries(adapters ?? {}).map(async ([task, address]) => {
    const bytes = await get(address, "arrayBuffer");
    return [task, { model: model.adapted(code.readSafetensors(bytes)), classes: code.readMetadata(bytes).classes }];
  });
  return Object.fromEntries(await Promise.all(found));
}

/** What is loaded is another thing where the truth is loaded with it. */
const keyOf = (address, { world = "" }) => `${address} ${world}`;

function once(key, start) {
  if (!loaded.has(key)) {
    loaded.set(key, start().catch((error) => {
      loaded.delete(key); // a failed download may be tried again
      throw error;
    }));
  }
  return loaded.get(key);
}

/** Loads the model of `assets` once, then answers `question` (or nothing when there is none, or only a step).
 *  question.step: the snapshot that answers; the last weights where none is named. */
export async function handle({ assets, question }) {
  const step = question?.step, weights = step === undefined ? assets.weights : assets.snapshots[step];
  if (!weights) throw new Error(`this site has no snapshot of step ${step}`);
  const parts = await once(keyOf(weights, assets), () => load({ ...assets, weights }));
  if (!question || Object.keys(question).join() === "step") return null;
  if ("statement" in question) {
    const specialists = await once(`${assets.weights} adapters`, () => loadSpecialists(assets, parts));
    return consult(question, { ...parts, specialists });
  }
  if ("beginning" in question) return nextWord(question, parts);
  if ("damaged" in question) return restore(question, parts);
  return "about" in question ? judge(question, parts) : answer(question, parts);
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.onmessage = async ({ data: { number, ...request } }) => {
    try {
      self.postMessage({ number, answer: await handle(request) });
    } catch (error) {
      self.postMessage({ number, error: error.message });
    }
  };
}
