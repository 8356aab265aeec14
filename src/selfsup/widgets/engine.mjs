// A BERT encoder with its heads, for masked words and for pairs, in plain JavaScript: reads a Hugging Face model folder
// (config.json, model.safetensors in f16 or f32, tokenizer.json) and gives the logits that transformers gives.
// Matrices are Float32Array, row after row; a weight is (outputs, inputs), as torch stores it.

const REMOVED = /[\p{Cc}\p{Cf}\p{Co}\ufffd]/u;
const SPACE = /\p{White_Space}/u;
const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/u;
const CHINESE = /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/u;
const LONGEST_WORD = 100;

/** BERT's WordPiece on lower-cased words; a word-level tokenizer is the case in which every word is one piece. */
export class Tokenizer {
  /** @param {object} json  the parsed tokenizer.json, with a WordPiece or WordLevel model */
  constructor(json) {
    const { model, normalizer = {}, added_tokens = [] } = json;
    if (!["WordPiece", "WordLevel"].includes(model?.type)) {
      throw new Error(`the engine reads WordPiece and WordLevel tokenizers, not ${model?.type}`);
    }
    this.vocab = new Map(Object.entries(model.vocab));
    for (const { content, id } of added_tokens) this.vocab.set(content, id);
    this.tokens = [];
    for (const [token, id] of this.vocab) this.tokens[id] = token;
    this.special = added_tokens.filter((token) => token.special).map((token) => token.content);
    const escaped = this.special.map((token) => token.replace(/[^\w]/g, "\\$&"));
    this.specials = new RegExp(`(${escaped.join("|") || "(?!)"})`);
    this.unknown = this.vocab.get(model.unk_token ?? "[UNK]");
    this.pieces = model.type === "WordPiece";
    this.prefix = model.continuing_subword_prefix ?? "##";
    this.longest = model.max_input_chars_per_word ?? LONGEST_WORD;
    const rules = (normalizer?.normalizers ?? [normalizer]).map((part) => part ?? {});
    const bert = rules.find((part) => part.type === "BertNormalizer");
    this.clean = bert?.clean_text ?? false;
    this.chinese = bert?.handle_chinese_chars ?? false;
    this.lower = bert?.lowercase ?? rules.some((part) => part.type === "Lowercase");
    this.strip = bert ? bert.strip_accents ?? this.lower : rules.some((part) => part.type === "StripAccents");
  }

  /** The id of a token that must be there, such as "[MASK]". */
  id(token) {
    if (!this.vocab.has(token)) throw new Error(`the tokenizer has no ${token}`);
    return this.vocab.get(token);
  }

  /** Words of a text, in order: {text: as written, ids: its pieces}. Special tokens are words, too. */
  words(text) {
    const words = [];
    for (const part of text.split(this.specials)) {
      if (this.special.includes(part)) words.push({ text: part, ids: [this.vocab.get(part)] });
      else for (const word of this.#split(part)) words.push({ text: word.written, ids: this.#ids(word.letters) });
    }
    return words;
  }

  #split(text) {
    const words = [];
    let word = null;
    const end = () => { if (word) words.push(word); word = null; };
    for (const written of text) {
      const alone = this.chinese && CHINESE.test(written);
      let letters = written;
      if (this.clean && !/[\t\n\r]/.test(written) && REMOVED.test(written)) letters = "";
      if (this.strip) letters = letters.normalize("NFD").replace(/\p{Mn}/gu, "");
      if (this.lower) letters = Array.from(letters, (letter) => letter.toLowerCase()).join("");
      if (alone) end();
      if (!letters && word) word.written += written;
      for (const letter of letters) {
        if (SPACE.test(letter)) end();
        else if (PUNCTUATION.test(letter)) { end(); words.push({ written, letters: [letter] }); }
        else {
          word ??= { written: "", letters: [] };
          word.letters.push(letter);
        }
      }
      if (letters && word) word.written += written;
      if (alone) end();
    }
    end();
    return words;
  }

  #ids(letters) {
    if (!this.pieces) return [this.vocab.get(letters.join("")) ?? this.unknown];
    if (letters.length > this.longest) return [this.unknown];
    const ids = [];
    for (let start = 0, end; start < letters.length; start = end) {
      let id;
      for (end = letters.length; end > start; end--) {
        id = this.vocab.get((start ? this.prefix : "") + letters.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return [this.unknown];
      ids.push(id);
    }
    return ids;
  }
}

function halfTable() {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const size = exponent === 31 ? (fraction ? NaN : Infinity)
      : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction;
    table[bits] = bits & 32768 ? -size : size;
  }
  return table;
}

const broken = () => new Error("the weights file is damaged or incomplete: load the page again");

/** What stands before the tensors of a safetensors file, and where they begin. */
function readHeader(buffer) {
  if (buffer.byteLength < 8) throw broken();
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  if (start > buffer.byteLength) throw broken();
  return { header: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8))), start };
}

/** What a safetensors file says about itself: the course writes every value as JSON. */
export function readMetadata(buffer) {
  const about = Object.entries(readHeader(buffer).header.__metadata__ ?? {});
  return Object.fromEntries(about.map(([key, value]) => [key, JSON.parse(value)]));
}

/** The tensors of a safetensors file as float32: name -> {shape, data}. Throws if the file is damaged. */
export function readSafetensors(buffer) {
  const { header, start } = readHeader(buffer);
  const tensors = {};
  let half = null;
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__" || dtype === "I64") continue;
    const [from, to] = data_offsets.map((offset) => start + offset);
    if (to > buffer.byteLength) throw broken();
    const bytes = buffer.slice(from, to);
    if (dtype === "F32") tensors[name] = { shape, data: new Float32Array(bytes) };
    else if (dtype === "F16") {
      half ??= halfTable();
      const bits = new Uint16Array(bytes), data = new Float32Array(bits.length);
      for (let i = 0; i < bits.length; i++) data[i] = half[bits[i]];
      tensors[name] = { shape, data };
    } else throw new Error(`${name} is stored as ${dtype}: the engine reads F16 and F32`);
  }
  return tensors;
}

/** y = x Wᵀ + b for x (rows, inputs); four rows at a time share each weight that is read. */
export function linear(x, rows, { weight, bias, inputs, outputs }) {
  const y = new Float32Array(rows * outputs);
  const block = new Float64Array(4 * inputs);
  for (let row = 0; row < rows; row += 4) {
    const last = rows - 1;
    const r0 = row, r1 = Math.min(row + 1, last), r2 = Math.min(row + 2, last), r3 = Math.min(row + 3, last);
    for (let i = 0, k = 0; i < inputs; i++, k += 4) {
      block[k] = x[r0 * inputs + i];
      block[k + 1] = x[r1 * inputs + i];
      block[k + 2] = x[r2 * inputs + i];
      block[k + 3] = x[r3 * inputs + i];
    }
    for (let out = 0; out < outputs; out += 2) {
      const other = Math.min(out + 1, outputs - 1);
      const w = out * inputs, v = other * inputs;
      let a0 = bias[out], a1 = a0, a2 = a0, a3 = a0, b0 = bias[other], b1 = b0, b2 = b0, b3 = b0;
      for (let i = 0, k = 0; i < inputs; i++, k += 4) {
        const p = weight[w + i], q = weight[v + i];
        const x0 = block[k], x1 = block[k + 1], x2 = block[k + 2], x3 = block[k + 3];
        a0 += p * x0; a1 += p * x1; a2 += p * x2; a3 += p * x3;
        b0 += q * x0; b1 += q * x1; b2 += q * x2; b3 += q * x3;
      }
      y[r0 * outputs + out] = a0; y[r0 * outputs + other] = b0;
      y[r1 * outputs + out] = a1; y[r1 * outputs + other] = b1;
      y[r2 * outputs + out] = a2; y[r2 * outputs + other] = b2;
      y[r3 * outputs + out] = a3; y[r3 * outputs + other] = b3;
    }
  }
  return y;
}

function layerNorm(x, rows, { weight, bias }, eps) {
  const width = weight.length;
  for (let start = 0; start < rows * width; start += width) {
    let mean = 0, variance = 0;
    for (let i = 0; i < width; i++) mean += x[start + i] / width;
    for (let i = 0; i < width; i++) variance += (x[start + i] - mean) ** 2 / width;
    const scale = 1 / Math.sqrt(variance + eps);
    for (let i = 0; i < width; i++) x[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
  }
  return x;
}

/** The error function, to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26). */
export function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - poly * Math.exp(-x * x));
}

const gelu = (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2));

export function softmax(scores) {
  const top = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const exps = Float64Array.from(scores, (score) => Math.exp(score - top));
  const sum = exps.reduce((a, b) => a + b, 0);
  return exps.map((value) => value / sum);
}

/** Scaled dot-product attention, head by head: query (queries, width); key and value (keys, width).
 *  With `causal`, the last query is the last key's own position and sees no later one. */
export function attention(query, key, value, queries, keys, width, heads, causal = false) {
  const mixed = new Float32Array(queries * width);
  const size = width / heads;
  for (let head = 0; head < heads; head++) {
    for (let q = 0; q < queries; q++) {
      const from = q * width + head * size;
      const seen = causal ? keys - queries + q + 1 : keys;
      const scores = new Float64Array(seen);
      for (let k = 0; k < seen; k++) {
        let dot = 0;
        for (let i = 0, at = k * width + head * size; i < size; i++) dot += query[from + i] * key[at + i];
        scores[k] = dot / Math.sqrt(size);
      }
      const weights = softmax(scores);
      for (let k = 0; k < seen; k++) {
        const share = weights[k];
        for (let i = 0, at = k * width + head * size; i < size; i++) mixed[from + i] += share * value[at + i];
      }
    }
  }
  return mixed;
}

const LINEAR = { // the linear layers of a block
  query: "attention.self.query", key: "attention.self.key", value: "attention.self.value",
  output: "attention.output.dense", up: "intermediate.dense", down: "output.dense",
};

/** W + B A for an adapter's thin matrices A (rank, inputs) and B (outputs, rank). */
function merged({ weight, inputs, outputs, bias }, { data: a, shape: [rank, width] }, { data: b }) {
  if (width !== inputs || b.length !== outputs * rank) throw new Error("the adapter is not of this model");
  const sum = Float32Array.from(weight);
  for (let out = 0; out < outputs; out++) {
    for (let r = 0; r < rank; r++) {
      const share = b[out * rank + r];
      for (let i = 0; i < inputs; i++) sum[out * inputs + i] += share * a[r * inputs + i];
    }
  }
  return { weight: sum, bias, inputs, outputs };
}

export class Bert {
  /** @param {object} config  the parsed config.json
   *  @param {ArrayBuffer} weights  the bytes of model.safetensors (BertForMaskedLM's or BertForPreTraining's names) */
  constructor(config, weights) {
    const tensors = readSafetensors(weights);
    const take = (name) => {
      const tensor = tensors[name] ?? tensors[`bert.${name}`];
      if (!tensor) throw new Error(`the weights file has no ${name}`);
      return tensor;
    };
    const matrix = (name, bias = take(`${name}.bias`).data) => {
      const { shape: [outputs, inputs], data: weight } = take(`${name}.weight`);
      return { weight, bias, inputs, outputs };
    };
    const norm = (name) => ({ weight: take(`${name}.weight`).data, bias: take(`${name}.bias`).data });
    if (config.hidden_act !== "gelu") throw new Error(`the engine has the activation gelu, not ${config.hidden_act}`);
    this.config = config;
    this.width = config.hidden_size;
    this.heads = config.num_attention_heads;
    this.eps = config.layer_norm_eps ?? 1e-12;
    this.words = matrix("embeddings.word_embeddings", null);
    this.positions = take("embeddings.position_embeddings.weight").data;
    this.segments = take("embeddings.token_type_embeddings.weight").data;
    this.norm = norm("embeddings.LayerNorm");
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, i) => `encoder.layer.${i}`).map((at) => ({
      ...Object.fromEntries(Object.entries(LINEAR).map(([part, name]) => [part, matrix(`${at}.${name}`)])),
      attentionNorm: norm(`${at}.attention.output.LayerNorm`),
      norm: norm(`${at}.output.LayerNorm`),
    }));
    this.transform = matrix("cls.predictions.transform.dense");
    this.transformNorm = norm("cls.predictions.transform.LayerNorm");
    const untied = tensors["cls.predictions.decoder.weight"]?.data;
    const bias = (tensors["cls.predictions.bias"] ?? take("cls.predictions.decoder.bias")).data;
    this.decoder = { ...this.words, weight: untied ?? this.words.weight, bias };
    if (tensors["cls.seq_relationship.weight"]) {
      [this.pooler, this.relation] = [matrix("pooler.dense"), matrix("cls.seq_relationship")];
    }
  }

  /** This model with the adapter and the head in `tensors` (see adapters.py): it shares all that they do not change. */
  adapted(tensors) {
    const left = new Map(Object.entries(tensors));
    const take = (name) => {
      const tensor = left.get(name);
      if (!left.delete(name)) throw new Error(`the adapter is not of this model: ${name} is missing`);
      return tensor;
    };
    const model = Object.assign(Object.create(Bert.prototype), this);
    model.layers = this.layers.map((layer, i) => {
      const parts = Object.entries(LINEAR).map(([part, name]) => {
        const [a, b] = ["A", "B"].map((which) => take(`bert.encoder.layer.${i}.${name}.lora_${which}.weight`));
        return [part, merged(layer[part], a, b)];
      });
      return { ...layer, ...Object.fromEntries(parts) };
    });
    const { data: weight, shape: [outputs, inputs] } = take("head.weight"), { data: bias } = take("head.bias");
    if (left.size || inputs !== this.width || bias.length !== outputs) {
      throw new Error(`the adapter is not of this model: ${left.keys().next().value ?? "its head"} does not fit`);
    }
    model.head = { weight, bias, inputs, outputs };
    return model;
  }

  /** The head's logits of an adapted model: an array for each token, or with `whole` one for the mean of their vectors. */
  classify(ids, segments, whole = false) {
    let states = this.encode(ids, segments);
    if (whole) {
      const mean = new Float32Array(this.width);
      states.forEach((value, i) => { mean[i % this.width] += value / ids.length; });
      states = mean;
    }
    const rows = states.length / this.width, { outputs } = this.head;
    const all = linear(states, rows, this.head);
    return Array.from({ length: rows }, (_, row) => all.subarray(row * outputs, (row + 1) * outputs));
  }

  /** Hidden states (ids.length, width) of one text: token ids with [CLS] and [SEP], no padding.
   *  segments: the token type of each, 0 for all where none are given. */
  encode(ids, segments = null) {
    const { width, heads, eps } = this;
    const time = ids.length, longest = this.positions.length / width;
    if (time > longest) throw new Error(`${time} tokens; the model reads at most ${longest}`);
    let x = new Float32Array(time * width);
    for (let t = 0; t < time; t++) {
      const [word, position, segment] = [ids[t], t, segments?.[t] ?? 0].map((row) => row * width);
      for (let i = 0; i < width; i++) {
        x[position + i] = this.words.weight[word + i] + this.positions[position + i] + this.segments[segment + i];
      }
    }
    layerNorm(x, time, this.norm, eps);
    const add = (residual, update) => update.map((value, i) => value + residual[i]);
    for (const layer of this.layers) {
      const [query, key, value] = [layer.query, layer.key, layer.value].map((part) => linear(x, time, part));
      const mixed = attention(query, key, value, time, time, width, heads);
      x = layerNorm(add(x, linear(mixed, time, layer.output)), time, layer.attentionNorm, eps);
      const hidden = linear(x, time, layer.up).map(gelu);
      x = layerNorm(add(x, linear(hidden, time, layer.down)), time, layer.norm, eps);
    }
    return x;
  }

  /** Logits (positions.length, vocabulary) at the asked positions only, as one Float32Array a position. */
  logits(ids, positions, segments = null) {
    const states = this.encode(ids, segments);
    const rows = positions.length;
    const asked = new Float32Array(rows * this.width);
    positions.forEach((t, row) => asked.set(states.subarray(t * this.width, (t + 1) * this.width), row * this.width));
    const hidden = linear(asked, rows, this.transform).map(gelu);
    const all = linear(layerNorm(hidden, rows, this.transformNorm, this.eps), rows, this.decoder);
    return positions.map((_, row) => all.subarray(row * this.decoder.outputs, (row + 1) * this.decoder.outputs));
  }

  /** The two logits of a pair of sentences, as it was and changed, from the vector of [CLS]. */
  pair(ids, segments) {
    if (!this.relation) throw new Error("this model judges no pairs of sentences");
    const pooled = linear(this.encode(ids, segments).subarray(0, this.width), 1, this.pooler).map(Math.tanh);
    return linear(pooled, 1, this.relation);
  }
}
