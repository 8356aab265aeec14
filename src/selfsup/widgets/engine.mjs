// BERT, GPT-2 and BART in plain JavaScript: reads a Hugging Face model folder (config.json, model.safetensors in f16 or
// f32, and tokenizer.mjs its tokenizer.json) and gives the logits that transformers gives. The three share one block.
// Matrices are Float32Array, row after row; a weight is (outputs, inputs), as torch stores it.

export { Tokenizer } from "./tokenizer.mjs";

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
  try {
    return { header: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8))), start };
  } catch {
    throw broken();
  }
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
export function linear(x, rows, layer) {
  if (rows === 1) return linearOfOne(x, layer);
  const { weight, bias, inputs, outputs } = layer;
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

/** The same for one row, all that a decoder has while it writes: four outputs share each input that is read.
 *  The sums are made in the same order, so a token read alone gets exactly what it gets among others. */
function linearOfOne(x, { weight, bias, inputs, outputs }) {
  const y = new Float32Array(outputs), last = outputs - 1;
  for (let out = 0; out < outputs; out += 4) {
    const o0 = out, o1 = Math.min(out + 1, last), o2 = Math.min(out + 2, last), o3 = Math.min(out + 3, last);
    const w0 = o0 * inputs, w1 = o1 * inputs, w2 = o2 * inputs, w3 = o3 * inputs;
    let a0 = bias[o0], a1 = bias[o1], a2 = bias[o2], a3 = bias[o3];
    for (let i = 0; i < inputs; i++) {
      const value = x[i];
      a0 += weight[w0 + i] * value; a1 += weight[w1 + i] * value;
      a2 += weight[w2 + i] * value; a3 += weight[w3 + i] * value;
    }
    y[o0] = a0; y[o1] = a1; y[o2] = a2; y[o3] = a3;
  }
  return y;
}

/** The rows of a matrix, which they share. */
function rowsOf(matrix, width) {
  return Array.from({ length: matrix.length / width }, (_, row) => matrix.subarray(row * width, (row + 1) * width));
}

/** Norms each row of x, in place. */
function layerNorm(x, { weight, bias }, eps) {
  const width = weight.length;
  for (let start = 0; start < x.length; start += width) {
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
const geluNew = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))); // GPT-2's

export function softmax(scores) {
  const top = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const exps = Float64Array.from(scores, (score) => Math.exp(score - top));
  const sum = exps.reduce((a, b) => a + b, 0);
  return exps.map((value) => value / sum);
}

/** Scaled dot-product attention, head by head: query (queries, width); key and value (keys, width).
 *  With `causal`, the last query is the last key's own position and sees no later one. `looks` is a list that gets the
 *  weights (queries, keys) of each head. */
export function attention(query, key, value, queries, keys, width, heads, causal = false, looks = null) {
  const mixed = new Float32Array(queries * width);
  const size = width / heads;
  for (let head = 0; head < heads; head++) {
    const look = looks && new Float32Array(queries * keys);
    looks?.push(look);
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
      look?.set(weights, q * keys);
      for (let k = 0; k < seen; k++) {
        const share = weights[k];
        for (let i = 0, at = k * width + head * size; i < size; i++) mixed[from + i] += share * value[at + i];
      }
    }
  }
  return mixed;
}

/** One Transformer block on x (rows, width): attention, attention to a memory, if there is one, and the feed-forward
 *  network, each added to what enters it; normFirst norms what enters each part, as GPT-2 does, and not the sum.
 *  past: {key, value} of earlier tokens, to which these are added: a block that has one is a decoder's, and looks back
 *  only. memory: {key, value}. looks: a list that gets the weights of each head's look at the memory. */
function block(x, layer, { width, heads, eps, activation, normFirst }, past, memory, looks) {
  const rows = x.length / width;
  const look = (y, part, { key, value }, causal, seen) => {
    const query = linear(y, rows, part.query), keys = key.length / width;
    return linear(attention(query, key, value, rows, keys, width, heads, causal, seen), rows, part.output);
  };
  const add = (norm, part) => {
    const update = part(normFirst ? layerNorm(x.slice(), norm, eps) : x);
    const sum = update.map((value, i) => value + x[i]);
    x = normFirst ? sum : layerNorm(sum, norm, eps);
  };
  add(layer.attentionNorm, (y) => {
    const own = { key: linear(y, rows, layer.key), value: linear(y, rows, layer.value) };
    if (!past) return look(y, layer, own, false);
    for (const part of ["key", "value"]) past[part] = joined(past[part], own[part]);
    return look(y, layer, past, true);
  });
  if (memory) add(layer.crossNorm, (y) => look(y, layer.cross, memory, false, looks));
  add(layer.norm, (y) => linear(linear(y, rows, layer.up).map(activation), rows, layer.down));
  return x;
}

function joined(first, second) {
  const all = new Float32Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

/** The hidden states (ids.length, width) of tokens in a stack of blocks: a BERT, a GPT-2, or one half of a BART.
 *  segments: the token type of each. cache: of the tokens before them, to which these are added. memory: see Bart. */
function encode(stack, ids, { segments = null, cache = null, memory = null, looks = null }) {
  const { words, positions, segments: kinds = null, width } = stack;
  const before = cache?.length ?? 0, time = before + ids.length, longest = positions.length / width;
  if (time > longest) throw new Error(`${time} tokens; the model reads at most ${longest}`);
  let x = new Float32Array(ids.length * width);
  for (let t = 0; t < ids.length; t++) {
    const [to, word, position, kind] = [t, ids[t], before + t, segments?.[t] ?? 0].map((row) => row * width);
    for (let i = 0; i < width; i++) {
      x[to + i] = words.weight[word + i] + positions[position + i] + (kinds ? kinds[kind + i] : 0);
    }
  }
  if (stack.norm) layerNorm(x, stack.norm, stack.eps);
  stack.layers.forEach((layer, i) => {
    const heads = looks && [];
    looks?.push(heads);
    x = block(x, layer, stack, cache?.pasts[i], memory?.layers[i], heads);
  });
  if (cache) cache.length = time;
  return x;
}

/** What a model takes from its weights file, by names with or without `prefix`: tensors, linear layers and norms. */
function opened(weights, prefix) {
  const tensors = readSafetensors(weights);
  const take = (name) => {
    const tensor = tensors[name] ?? tensors[`${prefix}${name}`];
    if (!tensor) throw new Error(`the weights file has no ${name}`);
    return tensor;
  };
  const matrix = (name, bias = take(`${name}.bias`).data) => {
    const { shape: [outputs, inputs], data: weight } = take(`${name}.weight`);
    return { weight, bias, inputs, outputs };
  };
  const matrices = (at, names) => Object.fromEntries(Object.entries(names).map(([part, n]) => [part, matrix(at + n)]));
  const norm = (name) => ({ weight: take(`${name}.weight`).data, bias: take(`${name}.bias`).data });
  return { tensors, take, matrix, matrices, norm };
}

/** Refuses a model whose config.json wants what the engine has not; a value that is not there is the one it has. */
function accept(config, only) {
  for (const [name, value] of Object.entries(only)) {
    const found = config[name] ?? value;
    if (found !== value) throw new Error(`the engine reads models with ${name} ${value}, not ${found}`);
  }
}

const layersOf = (count, make) => Array.from({ length: count }, (_, i) => make(i));

const LINEAR = { // the linear layers of a BERT's block
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
    const { tensors, take, matrix, matrices, norm } = opened(weights, "bert.");
    if (config.hidden_act !== "gelu") throw new Error(`the engine has the activation gelu, not ${config.hidden_act}`);
    this.config = config;
    this.width = config.hidden_size;
    this.heads = config.num_attention_heads;
    this.eps = config.layer_norm_eps ?? 1e-12;
    this.activation = gelu;
    this.words = matrix("embeddings.word_embeddings", null);
    this.positions = take("embeddings.position_embeddings.weight").data;
    this.segments = take("embeddings.token_type_embeddings.weight").data;
    this.norm = norm("embeddings.LayerNorm");
    this.layers = layersOf(config.num_hidden_layers, (i) => ({
      ...matrices(`encoder.layer.${i}.`, LINEAR),
      attentionNorm: norm(`encoder.layer.${i}.attention.output.LayerNorm`),
      norm: norm(`encoder.layer.${i}.output.LayerNorm`),
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
    return rowsOf(linear(states, states.length / this.width, this.head), this.head.outputs);
  }

  /** Hidden states (ids.length, width) of one text: token ids with [CLS] and [SEP], no padding.
   *  segments: the token type of each, 0 for all where none are given. */
  encode(ids, segments = null) {
    return encode(this, ids, { segments });
  }

  /** Logits (positions.length, vocabulary) at the asked positions only, as one Float32Array a position. */
  logits(ids, positions, segments = null) {
    const states = this.encode(ids, segments);
    const rows = positions.length;
    const asked = new Float32Array(rows * this.width);
    positions.forEach((t, row) => asked.set(states.subarray(t * this.width, (t + 1) * this.width), row * this.width));
    const hidden = linear(asked, rows, this.transform).map(gelu);
    return rowsOf(linear(layerNorm(hidden, this.transformNorm, this.eps), rows, this.decoder), this.decoder.outputs);
  }

  /** The two logits of a pair of sentences, as it was and changed, from the vector of [CLS]. */
  pair(ids, segments) {
    if (!this.relation) throw new Error("this model judges no pairs of sentences");
    const pooled = linear(this.encode(ids, segments).subarray(0, this.width), 1, this.pooler).map(Math.tanh);
    return linear(pooled, 1, this.relation);
  }
}

/** What a decoder keeps of the tokens that it has read: of each block, the keys and values (length, width). */
function start(model) {
  const none = new Float32Array(0);
  return { length: 0, pasts: model.layers.map(() => ({ key: none, value: none })) };
}

/** A cache from which another text can go on: both share what they hold, since no array in a cache ever changes. */
export function copy({ length, pasts }) {
  return { length, pasts: pasts.map((past) => ({ ...past })) };
}

/** Takes a cache back to its first `length` tokens. */
export function cut(cache, length) {
  if (!(length >= 0 && length <= cache.length)) {
    throw new Error(`the cache holds ${cache.length} tokens and cannot be cut to ${length}`);
  }
  for (const past of cache.pasts) {
    const width = past.key.length / cache.length || 0;
    for (const part of ["key", "value"]) past[part] = past[part].subarray(0, length * width);
  }
  cache.length = length;
}

/** The logits after the last of some hidden states, or with `all` an array after each. */
function scored(states, words, all) {
  if (!states.length) throw new Error("there is no token to go on from: give one at least");
  const asked = all ? states : states.subarray(-words.inputs);
  const logits = linear(asked, asked.length / words.inputs, words);
  return all ? rowsOf(logits, words.outputs) : logits;
}

/** A linear layer of GPT-2, which stores its matrices (inputs, outputs): `count` of its outputs, from `first` on. */
function turned({ shape: [inputs, outputs], data }, bias, first = 0, count = outputs) {
  const weight = new Float32Array(count * inputs);
  for (let i = 0; i < inputs; i++) {
    for (let out = 0; out < count; out++) weight[out * inputs + i] = data[i * outputs + first + out];
  }
  return { weight, bias: bias.data.subarray(first, first + count), inputs, outputs: count };
}

export class Gpt {
  /** @param {object} config  the parsed config.json
   *  @param {ArrayBuffer} weights  the bytes of model.safetensors (GPT2LMHeadModel's names) */
  constructor(config, weights) {
    const { take, matrix, norm } = opened(weights, "transformer.");
    accept(config, {
      activation_function: "gelu_new", scale_attn_weights: true, scale_attn_by_inverse_layer_idx: false,
      add_cross_attention: false, tie_word_embeddings: true,
    });
    this.config = config;
    const width = this.width = config.n_embd;
    this.heads = config.n_head;
    this.eps = config.layer_norm_epsilon ?? 1e-5;
    [this.activation, this.normFirst] = [geluNew, true];
    this.words = matrix("wte", new Float32Array(take("wte.weight").shape[0])); // as scores they have no bias
    this.positions = take("wpe.weight").data;
    this.layers = layersOf(config.n_layer, (i) => {
      const part = (name, ...some) => turned(take(`h.${i}.${name}.weight`), take(`h.${i}.${name}.bias`), ...some);
      const [query, key, value] = [0, 1, 2].map((third) => part("attn.c_attn", third * width, width));
      const [output, up, down] = ["attn.c_proj", "mlp.c_fc", "mlp.c_proj"].map((name) => part(name));
      return { query, key, value, output, up, down, attentionNorm: norm(`h.${i}.ln_1`), norm: norm(`h.${i}.ln_2`) };
    });
    this.lastNorm = norm("ln_f");
  }

  /** A cache with nothing read yet. */
  start() {
    return start(this);
  }

  /** The logits of the token after the last of `ids`, or with `all` one array after each of them.
   *  cache: of what stands before `ids`, to which they are added. */
  next(ids, cache = null, all = false) {
    const states = encode(this, ids, { cache: cache ?? this.start() });
    return scored(layerNorm(states, this.lastNorm, this.eps), this.words, all);
  }
}

const ATTENTION = { query: "q_proj", key: "k_proj", value: "v_proj", output: "out_proj" }; // of a BART

export class Bart {
  /** @param {object} config  the parsed config.json
   *  @param {ArrayBuffer} weights  the bytes of model.safetensors (BartForConditionalGeneration's names) */
  constructor(config, weights) {
    const { take, matrix, matrices, norm } = opened(weights, "model.");
    accept(config, { activation_function: "gelu", scale_embedding: false, tie_word_embeddings: true });
    this.config = config;
    this.words = matrix("shared", take("final_logits_bias").data);
    const half = (name, count, heads) => ({
      words: this.words,
      positions: take(`${name}.embed_positions.weight`).data.subarray(2 * config.d_model), // the first two stay empty
      norm: norm(`${name}.layernorm_embedding`),
      width: config.d_model, heads, eps: 1e-5, activation: gelu, normFirst: false,
      layers: layersOf(count, (i) => `${name}.layers.${i}.`).map((at) => ({
        ...matrices(`${at}self_attn.`, ATTENTION),
        ...matrices(at, { up: "fc1", down: "fc2" }),
        attentionNorm: norm(`${at}self_attn_layer_norm`),
        norm: norm(`${at}final_layer_norm`),
        ...(name === "decoder" && {
          cross: matrices(`${at}encoder_attn.`, ATTENTION),
          crossNorm: norm(`${at}encoder_attn_layer_norm`),
        }),
      })),
    });
    this.encoder = half("encoder", config.encoder_layers, config.encoder_attention_heads);
    this.decoder = half("decoder", config.decoder_layers, config.decoder_attention_heads);
  }

  /** The memory of a text: for each of the decoder's blocks, the keys and values (length, width) that it looks at. */
  read(ids) {
    const states = encode(this.encoder, ids, {});
    const seen = (part) => linear(states, ids.length, part);
    const layers = this.decoder.layers.map(({ cross }) => ({ key: seen(cross.key), value: seen(cross.value) }));
    return { length: ids.length, layers };
  }

  /** A cache with nothing written yet. */
  start() {
    return start(this.decoder);
  }

  /** As Gpt's, for what is written about `memory`. looks: a list that gets, for each block, the attention weights of
   *  `ids` to the memory, as one Float32Array (ids.length, memory.length) for each head. */
  next(ids, memory, cache = null, all = false, looks = null) {
    const states = encode(this.decoder, ids, { cache: cache ?? this.start(), memory, looks });
    return scored(states, this.words, all);
  }
}

/** The model whose config.json and model.safetensors these are. */
export function modelOf(config, weights) {
  const Model = { bert: Bert, gpt2: Gpt, bart: Bart }[config.model_type];
  if (!Model) throw new Error(`the engine reads models of type bert, gpt2 and bart, not ${config.model_type}`);
  return new Model(config, weights);
}
