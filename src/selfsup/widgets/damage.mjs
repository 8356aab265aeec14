// What is done to a text before a model restores it: `damage` and `places` of restore.py are the same.

import { die } from "./sampling.mjs";

const MEAN = 3, LONGEST = 20; // words of a span, on average and at most

/** Which of n places the dice choose: each with probability `share`, and one at least. */
function chosen(n, share, seed) {
  const found = Array.from({ length: n }, (_, at) => at).filter((at) => die(seed, at) < share);
  return found.length ? found : [Math.floor(die(seed, n) * n)];
}

/** The count that a number in [0, 1) picks from the Poisson distribution. */
function poisson(number, mean) {
  let count = 0;
  for (let chance = Math.exp(-mean); number >= chance && count < LONGEST; chance *= mean / count) {
    number -= chance;
    count += 1;
  }
  return count;
}

/** [first, end] of spans of n words, one at least; since spans meet, the share covered is about 1 - exp(-rate). */
function spans(n, rate, least, seed) {
  const found = [];
  for (const at of chosen(n, rate / MEAN, seed)) {
    const end = Math.min(n, at + least + poisson(die(seed, n + 1 + at), MEAN - least)), last = found.at(-1);
    if (last && at < last[1]) last[1] = Math.max(last[1], end); // inside another, which becomes longer
    else found.push([at, end]);
  }
  return found;
}

/** A text cut after each full stop that is not inside quotation marks. */
export function sentences(text, { quote, fullStops }) {
  const found = [];
  let quoted = false, over = true;
  for (const word of text) {
    if (over) found.push([]);
    found.at(-1).push(word);
    if (word === quote) quoted = !quoted;
    over = fullStops.includes(word) && !quoted;
  }
  return found;
}

/** To the nearest whole number, and to an even one from the middle, as Python and torch round. */
const round = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/** x′, x″, and how many words stand before those that x″ gives back; all without [CLS] and [SEP].
 *  text: token ids, one at least. marks: the ids {mask, sentinels, fullStops, quote}. */
export function damage(text, kind, rate, seed, marks) {
  const n = text.length, whole = (seen) => ({ seen, target: text, before: 0 });
  if (kind === "masking") {
    const at = chosen(n, rate, seed);
    return whole(text.map((word, i) => (at.includes(i) ? marks.mask : word)));
  }
  if (kind === "deletion") {
    const at = chosen(n, rate, seed);
    return whole(text.filter((_, i) => !at.includes(i)));
  }
  if (kind === "permutation") {
    const parts = sentences(text, marks);
    let order = Array.from(parts.keys()).sort((a, b) => die(seed, a) - die(seed, b));
    if (order.every((part, i) => part === i)) order = [...order.slice(1), order[0]];
    return whole(order.flatMap((i) => parts[i]));
  }
  if (kind === "rotation") {
    const start = 1 + Math.floor(die(seed, 0) * (n - 1));
    return whole([...text.slice(start), ...text.slice(0, start)]);
  }
  if (kind === "mass") {
    const size = Math.max(1, round(n * rate)), start = Math.floor(die(seed, 0) * (n - size + 1)), end = start + size;
    return { seen: text.map((word, i) => (i >= start && i < end ? marks.mask : word)), target: text.slice(start, end), before: start };
  }
  const marked = kind === "spans", seen = [], written = [];
  const found = spans(n, rate, Number(marked), seed).slice(0, marked ? marks.sentinels.length - 1 : n);
  let before = 0;
  found.forEach(([first, end], number) => {
    const mark = marked ? marks.sentinels[number] : marks.mask;
    seen.push(...text.slice(before, first), mark);
    written.push(mark, ...text.slice(first, end));
    before = end;
  });
  seen.push(...text.slice(before));
  return marked ? { seen, target: [...written, marks.sentinels[found.length]], before: 0 } : whole(seen);
}

/** For each word written, which word of the target it should be: what is written before it is held against all
 *  beginnings of the target, and the one that the fewest changes of a word make of it has come as far. */
export function places(written, target) {
  let distances = Array.from({ length: target.length + 1 }, (_, j) => j);
  return written.map((word, i) => {
    const further = (a, b) => distances[a] - distances[b] || Math.abs(a - i) - Math.abs(b - i) || a - b;
    const place = Array.from(distances.keys()).reduce((a, b) => (further(b, a) < 0 ? b : a));
    const longer = [i + 1];
    target.forEach((real, j) => {
      longer.push(Math.min(distances[j] + Number(word !== real), distances[j + 1] + 1, longer[j] + 1));
    });
    distances = longer;
    return place;
  });
}
