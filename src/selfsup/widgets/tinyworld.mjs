// The exact truth of Tinyworld in the page: the same forward-backward as selfsup/corpora/tinyworld/automaton.py,
// for seen and masked tokens, over the same compiled grammar (world.json).
//
// A place is (state, valuation). A valuation holds one bit mask a register: the values that the register may still
// have. An observed token (or a guard) splits the mask; a masked token leaves it alone. Equal valuations are one object.

const SPECIAL = 5; // [PAD] [UNK] [CLS] [SEP] [MASK] come before the words
const END = 3;     // [SEP]: where the text ends

export class Impossible extends Error {
  constructor(position, word, reason) {
    super("impossible in Tinyworld: " + (reason ?? (word === null
      ? "the text stops in the middle of a sentence" : `'${word}' (token ${position + 1}) cannot stand here`)));
    Object.assign(this, { name: "Impossible", position, word });
  }
}

export function loadLanguage(json) {
  return new Language(json);
}

/** The pairs of neighbouring sentences, all equally likely, and the exact truth of them: mirrors pairs.py. */
export class Pairs {
  constructor(json) {
    const runs = { ...json, whole: 0, run: 0 }; // start at any sentence, stop where the document stops
    const [later, length] = withoutFirst(json.begin, json.anywhere);
    [this.firsts, this.seconds] = [new Language(runs), new Language({ ...runs, anywhere: later })];
    this.share = 1 - 1 / length; // of all sentences, those that another one follows
    this.groups = { place: json.states.stage, topic: json.states.topic, anywhere: json.states.topic.map(() => 0) };
    this.shares = this.#byGroup([...this.seconds.starts()].map(([state, mass]) => ({ state, mass })));
  }

  #byGroup(places) {
    const shares = {};
    for (const [kind, group] of Object.entries(this.groups)) {
      shares[kind] = [];
      for (const { state, mass } of places) shares[kind][group[state]] = (shares[kind][group[state]] ?? 0) + mass;
    }
    return shares;
  }

  /** By kind and group: P(a pair begins with a and goes on in the group). */
  first(a) {
    return this.#byGroup(this.firsts.sentence(a).flatMap((place) => this.firsts.after(place))
      .map(({ state, mass }) => ({ state, mass: mass / this.share })));
  }

  /** By kind and group: P(a pair ends with b, which is of the group). */
  second(b) {
    return this.#byGroup(this.seconds.sentence(b));
  }

  /** Whether the tokens are a sentence of the language. */
  says(tokens) {
    return this.firsts.sentence(tokens).length > 0;
  }

  /** P(a pair is a, b). */
  inARow(a, b) {
    if (!sum(this.first(a).anywhere) || !sum(this.second(b).anywhere)) return 0;
    return sum(this.firsts.ended([...a, ...b]).map(({ mass }) => mass)) / this.share;
  }

  /** P(a begins a pair and b ends another one), of the same "place", the same "topic", or from "anywhere". */
  apart(a, b, negatives = "place") {
    const [first, second] = [this.first(a)[negatives], this.second(b)[negatives]];
    return sum(this.shares[negatives].map((share, group) => (share ? (first[group] ?? 0) * (second[group] ?? 0) / share : 0)));
  }

  /** P(b follows a), when half the questions are pairs and half are apart. */
  isNext(a, b, negatives = "place") {
    const together = this.inARow(a, b), first = sum(this.first(a).anywhere);
    const apart = this.apart(a, b, negatives) * (1 - (first ? together / first : 0));
    return together + apart ? together / (together + apart) : 0.5;
  }

  /** P(a came first), when half the questions show a pair exchanged. */
  inOrder(a, b) {
    const [right, wrong] = [this.inARow(a, b), this.inARow(b, a)];
    return right + wrong ? right / (right + wrong) : 0.5;
  }
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

/** How a sentence starts that is not a document's first, written as `anywhere` is; and a document's mean length. */
function withoutFirst(begin, anywhere) {
  const weights = ([states, weight, guards]) => {
    const total = new Map();
    states.forEach((state, i) => {
      const key = `${state} ${guards[i]}`;
      total.set(key, (total.get(key) ?? 0) + weight[i]);
    });
    return total;
  };
  const [first, every] = [weights(begin), weights(anywhere)];
  const length = Math.max(...Array.from(first, ([key, weight]) => weight / every.get(key)));
  const later = [[], [], []];
  for (const [key, weight] of every) {
    const left = (weight - (first.get(key) ?? 0) / length) / (1 - 1 / length);
    if (left <= 1e-12) continue;
    const [state, guard] = key.split(" ").map(Number);
    later[0].push(state);
    later[1].push(left);
    later[2].push(guard);
  }
  return [later, length];
}

class Language {
  constructor({ words, topics, registers, distributions, views, guards, states, edges, begin, anywhere, ends, whole, run }) {
    this.words = words;
    this.topics = topics;
    this.topicOf = states.topic;
    this.registers = registers;
    this.index = new Map(words.map((word, i) => [word, i]));
    this.priors = registers.map((register) => register.prior);
    this.perSentence = registers.flatMap((register, i) => (register.scope === "sentence" ? [i] : []));
    this.known = new Map();
    this.everything = this.#valuation(this.priors.map((prior) => (1n << BigInt(prior.length)) - 1n));
    this.guards = guards.map((guard) => guard.map(([register, mask]) => [register, BigInt(mask)]));
    // what a state emits: a map word -> probability (no register), or through a view, value by value
    const spread = distributions.map(([ids, p]) => new Map(ids.map((id, i) => [id, p[i]])));
    this.plain = states.distribution.map((d) => (d < 0 ? null : spread[d]));
    this.view = states.view.map((v) => (v < 0 ? null : v));
    this.views = views.map(([register, options]) => {
      const levels = new Map(); // word -> [[P(word | value), mask of those values], ...]
      options.forEach((d, value) => spread[d].forEach((p, word) => {
        const masks = levels.get(word) ?? new Map();
        masks.set(p, (masks.get(p) ?? 0n) | (1n << BigInt(value)));
        levels.set(word, masks);
      }));
      return { register, options: options.map((d) => spread[d]), levels };
    });
    // edges by source; the last source is the beginning of a text
    this.start = states.view.length;
    this.final = new Map(ends[0].map((state, i) => [state, ends[1][i] + (1 - ends[1][i]) * run]));
    this.edges = Array.from({ length: this.start + 1 }, () => []);
    const add = (source, target, weight, guard) => this.edges[source].push({ target, weight, guard });
    edges[0].forEach((source, i) =>
      add(source, edges[1][i], edges[2][i] * (this.final.has(source) ? 1 - run : 1), edges[3][i]));
    [[begin, whole], [anywhere, 1 - whole]].forEach(([[target, weight, guard], share]) =>
      target.forEach((state, i) => add(this.start, state, weight[i] * share, guard[i])));
  }

  /** The tokens that are not words of this language. */
  unknown(tokens) {
    return tokens.filter((token) => token !== "[MASK]" && !this.index.has(token));
  }

  /** P(token | the rest) at each masked position: an array of Float64Array over token ids. Throws Impossible. */
  posterior(tokens, masked) {
    if (!tokens.length) throw new Error("the text is empty: give at least one sentence");
    const layers = this.#forward(tokens, new Set(masked));
    const row = { begin: new Map(), width: 0 }; // of the values of each register that a masked token reads
    for (const t of masked) {
      for (const { state } of layers[t]) {
        const register = this.view[state] === null ? null : this.views[this.view[state]].register;
        if (register === null || row.begin.has(register)) continue;
        row.begin.set(register, row.width);
        row.width += this.priors[register].length;
      }
    }
    const answers = new Map();
    let splits; // of one layer: those of all together are up to a gigabyte
    for (let t = tokens.length - 1; t >= 0; t--) {
      splits = this.#futures(layers[t], layers[t + 1], splits, row);
      if (masked.includes(t)) answers.set(t, this.#token(layers[t], splits, row));
    }
    if (!(layers.at(-1).reduce((sum, place) => sum + place.mass * place.future, 0) > 0)) throw new Impossible(tokens.length, null);
    return masked.map((t) => normalised(answers.get(t)));
  }

  /** P(topic | text), in the order of `topics`. Throws Impossible. */
  topic(tokens) {
    const answer = this.topics.map(() => 0);
    for (const { state, mass } of this.#forward(tokens, new Set()).at(-1)) {
      answer[this.topicOf[state]] += mass * (this.final.get(state) ?? 0);
    }
    if (!(sum(answer) > 0)) throw new Impossible(tokens.length, null);
    return normalised(answer);
  }

  /** P(value | text) of what a document holds in a register, in the order of its values. Throws Impossible. */
  register(tokens, name) {
    const number = this.registers.findIndex((register) => register.name === name);
    const answer = new Array(this.priors[number].length).fill(0);
    for (const { state, valuation, mass } of this.#forward(tokens, new Set()).at(-1)) {
      const share = mass * (this.final.get(state) ?? 0);
      if (share) this.#values(valuation, number).forEach((p, value) => { answer[value] += share * p; });
    }
    if (!(sum(answer) > 0)) throw new Impossible(tokens.length, null);
    return normalised(answer);
  }

  /** P(next token | prefix), a Float64Array over token ids; [SEP] has the probability that the text ends here. */
  nextWord(prefix) {
    const last = prefix.length ? this.#forward(prefix, new Set()).at(-1) : [this.#beginning()];
    const answer = new Float64Array(this.words.length + SPECIAL);
    for (const place of last) {
      answer[END] += place.mass * (this.final.get(place.state) ?? 0);
      for (const [state, valuation, weight] of this.#moves(place)) this.#emit(answer, state, place.mass * weight, (register) => this.#values(valuation, register));
    }
    return answer;
  }

  /** log P(text) in nats; [MASK] is summed over. Throws Impossible. */
  logProb(tokens) {
    const masked = new Set(tokens.flatMap((token, i) => (token === "[MASK]" ? [i] : [])));
    const layers = this.#forward(tokens, masked);
    const end = layers.at(-1).reduce((sum, place) => sum + place.mass * (this.final.get(place.state) ?? 0), 0);
    if (!(end > 0)) throw new Impossible(tokens.length, null);
    return layers.reduce((sum, layer) => sum + Math.log(layer.scale), Math.log(end));
  }

  /** [state, probability] of every way to begin. */
  * starts() {
    for (const [state, , weight] of this.#moves(this.#beginning())) yield [state, weight];
  }

  /** The places where a text of whole sentences ends, with their probability: [{state, valuation, mass}, …]. */
  ended(tokens) {
    const layers = this.#answered(tokens);
    const scale = layers.reduce((product, layer) => product * layer.scale, 1);
    return (layers.at(-1) ?? []).filter(({ state }) => this.final.has(state))
      .map(({ state, valuation, mass }) => ({ state, valuation, mass: mass * scale }));
  }

  /** The same of a text that is one sentence; none where it is not. */
  sentence(tokens) {
    const inside = this.#answered(tokens).slice(0, -1);
    return inside.some((layer) => layer.some(({ state }) => this.final.has(state))) ? [] : this.ended(tokens);
  }

  /** Where a text goes on after a place: [{state, mass}, …]. */
  after(place) {
    return Array.from(this.#moves(place), ([state, , weight]) => ({ state, mass: place.mass * weight }));
  }

  #answered(tokens) {
    try {
      return this.#forward(tokens, new Set());
    } catch (error) {
      if (error instanceof Impossible) return [];
      throw error;
    }
  }

  #beginning() {
    return { state: this.start, valuation: this.everything, mass: 1, future: 0 };
  }

  /** The places alive after each token, each layer scaled to mass 1, with the edges that lead to it: an edge is three
   *  numbers and no object, since a long text of [MASK]s has a million of them. */
  #forward(tokens, masked) {
    if (this.known.size > 50000) { // what is remembered may be forgotten between two questions
      this.known.clear();
      this.everything = this.#valuation(this.everything.masks);
    }
    let layer = [this.#beginning()];
    return tokens.map((token, t) => {
      const hidden = masked.has(t) || token === "[MASK]", word = this.index.get(token);
      if (!hidden && word === undefined) throw new Impossible(t, token, `'${token}' (token ${t + 1}) is not one of its words`);
      const next = [], numbers = new Map(), edges = { from: [], to: [], weight: [] };
      layer.forEach((place, from) => {
        for (const [state, before, weight] of this.#moves(place)) {
          for (const [valuation, chance] of hidden ? [[before, 1]] : this.#read(state, before, word)) {
            const key = state * 2 ** 32 + valuation.number;
            let to = numbers.get(key);
            if (to === undefined) numbers.set(key, (to = next.push({ state, valuation, mass: 0, future: 0 }) - 1));
            next[to].mass += place.mass * weight * chance;
            edges.from.push(from);
            edges.to.push(to);
            edges.weight.push(weight * chance);
          }
        }
      });
      layer = next;
      layer.edges = edges;
      layer.scale = layer.reduce((sum, place) => sum + place.mass, 0);
      if (!(layer.scale > 0)) throw new Impossible(t, token);
      for (const place of layer) place.mass /= layer.scale;
      return layer;
    });
  }

  /** [state, valuation, weight] of every edge out of a place whose guard lets it through. */
  * #moves({ state, valuation }) {
    if (this.final.has(state)) {
      valuation.fresh ??= this.#valuation(valuation.masks.map((mask, register) =>
        (this.perSentence.includes(register) ? this.everything.masks[register] : mask)));
      valuation = valuation.fresh;
    }
    for (const { target, weight, guard } of this.edges[state]) {
      let here = valuation, chance = weight;
      for (const [register, mask] of guard < 0 ? [] : this.guards[guard]) {
        const narrowed = here && this.#narrow(here, register, mask);
        [here, chance] = narrowed ? [narrowed[0], chance * narrowed[1]] : [null, 0];
      }
      if (here) yield [target, here, chance];
    }
  }

  /** [valuation, P(word | state, valuation)] for each way to tell the register's values apart. */
  #read(state, valuation, word) {
    if (this.view[state] === null) {
      const p = this.plain[state].get(word);
      return p ? [[valuation, p]] : [];
    }
    const { register, levels } = this.views[this.view[state]];
    return [...(levels.get(word) ?? [])].flatMap(([p, mask]) => {
      const narrowed = this.#narrow(valuation, register, mask);
      return narrowed ? [[narrowed[0], narrowed[1] * p]] : [];
    });
  }

  #valuation(masks) {
    const key = masks.join();
    if (!this.known.has(key)) this.known.set(key, { masks, number: this.known.size, narrowed: masks.map(() => new Map()), given: [] });
    return this.known.get(key);
  }

  /** Keep only the values in the mask: [valuation, probability of that], or null. */
  #narrow(valuation, register, mask) {
    const memory = valuation.narrowed[register];
    if (!memory.has(mask)) {
      const old = valuation.masks[register], kept = old & mask;
      memory.set(mask, kept === 0n ? null : kept === old ? [valuation, 1]
        : [this.#valuation(valuation.masks.with(register, kept)), this.#share(register, kept) / this.#share(register, old)]);
    }
    return memory.get(mask);
  }

  #share(register, mask) {
    return this.priors[register].reduce((sum, p, value) => sum + ((mask >> BigInt(value)) & 1n ? p : 0), 0);
  }

  /** P(value | valuation) of one register. */
  #values(valuation, register) {
    return (valuation.given[register] ??= (() => {
      const mask = valuation.masks[register], total = this.#share(register, mask);
      return this.priors[register].map((p, value) => ((mask >> BigInt(value)) & 1n ? p / total : 0));
    })());
  }

  /** Sets place.future, P(what follows | place), of a layer. The result: a row for each place, the same split by the
   *  value of each register. next, later: the layer after it and its result; undefined for the last one. */
  #futures(layer, next, later, { begin, width }) {
    const splits = new Float64Array(layer.length * width);
    if (next) {
      const { from, to, weight } = next.edges;
      for (let e = 0; e < from.length; e++) {
        layer[from[e]].future += weight[e] * next[to[e]].future;
        for (let k = 0; k < width; k++) splits[from[e] * width + k] += weight[e] * later[to[e] * width + k];
      }
    } else for (const place of layer) place.future = this.final.get(place.state) ?? 0;
    layer.forEach((place, i) => {
      for (const [register, first] of begin) {
        if (next && !(this.final.has(place.state) && this.perSentence.includes(register))) continue;
        splits.set(this.#values(place.valuation, register).map((p) => p * place.future), i * width + first); // it ends here
      }
    });
    return splits;
  }

  #token(layer, splits, { begin, width }) {
    const answer = new Float64Array(this.words.length + SPECIAL);
    layer.forEach(({ state, mass, future }, i) => {
      if (this.view[state] === null) this.#emit(answer, state, mass * future);
      else this.#emit(answer, state, mass, (register) => {
        const first = i * width + begin.get(register);
        return splits.subarray(first, first + this.priors[register].length);
      });
    });
    return answer;
  }

  /** Add weight * P(word | state) to `answer`, the register's values weighted by `values(register)`. */
  #emit(answer, state, weight, values) {
    if (this.view[state] === null) {
      this.plain[state].forEach((p, word) => { answer[word + SPECIAL] += weight * p; });
      return;
    }
    const { register, options } = this.views[this.view[state]];
    values(register).forEach((share, value) => {
      if (share) options[value].forEach((p, word) => { answer[word + SPECIAL] += weight * share * p; });
    });
  }
}

function normalised(answer) {
  const total = answer.reduce((sum, p) => sum + p, 0);
  return answer.map((p) => p / total);
}
