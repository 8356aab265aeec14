// How the next token is drawn; `distribution` in generation.py is the same.

/** The probabilities (vocabulary) from which the next token is drawn, 0 for those that are out. In this order:
 *  temperature divides the logits, and 0 leaves the best token alone; topK leaves so many of the most probable; topP
 *  the fewest of these whose share of them reaches it (Holtzman et al. 2020), one at least; minP those with at least
 *  this share of the most probable one's probability. null turns a limit off. Of equals, the first comes first. */
export function distribution(logits, { temperature = 1, topK = null, topP = null, minP = null } = {}) {
  const share = (value) => (value ?? 0) >= 0 && (value ?? 0) <= 1;
  if (!(temperature >= 0 && (topK ?? 1) >= 1 && share(topP) && share(minP))) {
    throw new Error("temperature is at least 0, topK at least 1, topP and minP are between 0 and 1");
  }
  let kept = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  const best = kept[0];
  const weight = Float64Array.from(logits, (logit) => Math.exp(temperature ? (logit - logits[best]) / temperature : 0));
  const total = () => kept.reduce((sum, id) => sum + weight[id], 0);
  kept = kept.slice(0, temperature ? topK ?? kept.length : 1);
  if ((topP ?? 1) < 1) { // at 1 rounding could drop the last
    const enough = topP * total();
    let mass = 0;
    kept = kept.filter((id) => {
      const before = mass;
      mass += weight[id];
      return id === best || before < enough;
    });
  }
  kept = kept.filter((id) => weight[id] >= (minP ?? 0) * weight[best]);
  const mass = total(), probabilities = new Float64Array(logits.length);
  for (const id of kept) probabilities[id] = weight[id] / mass;
  return probabilities;
}

/** Nats: how much is open. */
export const entropy = (chances) => chances.reduce((total, p) => (p > 0 ? total - p * Math.log(p) : total), 0);

/** A number in [0, 1) that a seed and a place decide (one round of mulberry32). */
export function die(seed, place) {
  let z = (Math.imul(seed + 1, 0x9e3779b1) + Math.imul(place + 1, 0x6d2b79f5)) >>> 0;
  z = Math.imul(z ^ (z >>> 15), z | 1);
  z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
  return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
}

/** The id that a number in [0, 1) picks. */
export function pick(chances, number) {
  let last = -1, sum = 0;
  for (let id = 0; id < chances.length; id++) {
    if (!chances[id]) continue;
    last = id;
    sum += chances[id];
    if (number < sum) return id;
  }
  return last;
}
