// What the widgets share: elements, choices, numbers, and the way to the models of a site that has no kernel.

const TINY = /^tinyworld-/; // the models with a truth beside them
const LONGEST_LINK = 1000; // characters of each text in a link
const MOMENT = 300; // ms that an answer may take unseen
export const SILENT_KERNEL = "The kernel has not answered: is it busy, or was it restarted? Run the cell again.";
export const ROOT = globalThis.document?.documentElement.dataset.content_root; // only the site's pages have one

/** The file at `url`; throws, as worker.mjs does, with a sentence to say where it does not come. */
async function fetched(url) {
  const { pathname } = new URL(url), response = await fetch(url).catch(() => ({ status: "no connection" }));
  if (!response.ok) throw new Error(`could not fetch ${pathname} (${response.status}); check the connection and try again`);
  return response;
}

/** Asks the models of this site in a worker, or on the page where there are no workers. */
function createEngine() {
  const root = new URL(ROOT || "./", document.baseURI);
  const address = (path) => new URL(path.startsWith("assets/") ? path : `assets/${path}`, root).href;
  const waiting = new Map();
  let manifest, backend, number = 0;

  async function assetsOf(name, truth) {
    manifest ??= fetched(address("manifest.json")).then((response) => response.json());
    const files = await manifest.catch((error) => { manifest = null; throw error; });
    if (!files[name]) throw new Error(`this site has no model ${name}`);
    const { config, weights, tokenizer, adapters = {}, snapshots = {} } = files[name];
    const assets = { engine: files["engine.mjs"], config, weights, tokenizer };
    if (truth) Object.assign(assets, { world: files["world.json"], tinyworld: files["tinyworld.mjs"] });
    for (const key of Object.keys(assets)) assets[key] = assets[key] && address(assets[key]);
    const addresses = (list) => Object.fromEntries(Object.entries(list).map(([key, file]) => [key, address(file)]));
    Object.assign(assets, { adapters: addresses(adapters), snapshots: addresses(snapshots) });
    return { assets, code: address(files["worker.mjs"]) };
  }

  function start(code) {
    const inPage = async (request) => {
      const { handle } = await import(code).catch(async (error) => {
        backend = undefined; // the next question may start a worker again
        await fetched(code);
        throw new Error(`could not run ${new URL(code).pathname} (${error.message})`);
      });
      return handle(request);
    };
    let worker;
    try { worker = new Worker(code, { type: "module" }); } catch { return inPage; }
    let works = false;
    worker.onmessage = ({ data }) => {
      works = true;
      const { resolve, reject } = waiting.get(data.number) ?? {};
      waiting.delete(data.number);
      if (data.error) reject?.(new Error(data.error)); else resolve?.(data.answer);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      if (!works) backend = inPage; // this browser runs no module workers
      for (const { request, resolve, reject } of waiting.values()) inPage(request).then(resolve, reject);
      waiting.clear();
    };
    return (request) => new Promise((resolve, reject) => {
      waiting.set(++number, { request, resolve, reject });
      worker.postMessage({ number, ...request });
    });
  }

  /** truth: whether the exact answer is wanted beside the model's. */
  return async function ask(name, question, truth = TINY.test(name)) {
    const { assets, code } = await assetsOf(name, truth);
    backend ??= start(code);
    return backend({ assets, question });
  };
}

/** The engine of this page, one for all its widgets. */
export const engine = () => (globalThis[Symbol.for("selfsup.engine")] ??= createEngine());

/** A function to call with what goes on while an answer is awaited, and with "" when it is there. What lasts more than a
 *  moment is seen and heard: the old answer, in `cards`, is dimmed, and `status` says what goes on. It stands outside
 *  of `cards`, since screen readers are silent on what is busy. */
export function waiter(cards, status) {
  let since = null, timer;
  return (doing, moment = MOMENT) => {
    clearTimeout(timer);
    if (doing) {
      since ??= performance.now(); // a new question does not begin the waiting anew
      cards.setAttribute("aria-busy", "true");
      timer = setTimeout(() => {
        cards.classList.add("ss-old");
        status.textContent = doing;
      }, since + moment - performance.now());
    } else {
      since = null;
      cards.removeAttribute("aria-busy");
      cards.classList.remove("ss-old");
      status.textContent = "";
    }
  };
}

/** An element; text is only ever text. */
export function make(tag, traits = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(traits)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** An element of a drawing. */
export function draw(tag, traits, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(traits)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const clip = (word, length = 24) => {
  const letters = Array.from(word);
  return letters.length > length ? `${letters.slice(0, length).join("")}…` : word;
};
/** A share with one decimal near 0 and 1; 0% and 100% are for what is certain. */
export function percent(p) {
  if (p < 1e-9 || p > 1 - 1e-9) return p < 0.5 ? "0%" : "100%";
  if (p < 0.001 || p > 0.999) return p < 0.5 ? "<0.1%" : ">99.9%";
  return `${(p * 100).toFixed(p < 0.0995 || p > 0.9005 ? 1 : 0)}%`;
}

export function choice(legend, name, options, onpick) {
  const group = make("div", { class: "ss-options" });
  for (const [value, label] of Object.entries(options)) {
    const input = make("input", { type: "radio", name, value, onchange: () => onpick(value) });
    group.append(make("label", {}, input, make("span", {}, label)));
  }
  return make("fieldset", { class: "ss-choice" }, make("legend", {}, legend), group);
}

export function check(group, value) {
  for (const input of group.querySelectorAll("input")) input.checked = input.value === value;
}

/** A colour of a legend, and what it means. */
export function key(colour, label) {
  const swatch = make("span", { class: "ss-key", "aria-hidden": "true" });
  swatch.style.background = `var(--${colour})`;
  return make("span", { class: "ss-small" }, swatch, label);
}

/** A row for each label: the model's bar above the truth's, where there is one. */
export function bars(title, labels, model, exact) {
  const body = make("tbody");
  const bar = (kind, value) => {
    const node = make("span", { class: `ss-bar ss-bar-${kind}` });
    node.hidden = value === 0;
    node.style.width = `${100 * value}%`;
    return node;
  };
  const number = (kind, name, value) => make("span", { class: `ss-number ss-${kind}-text` },
    make("span", { class: "ss-for-readers" }, `${name} `), percent(value));
  labels.forEach((label, index) => {
    const drawn = make("td", { "aria-hidden": "true" }, bar("model", model[index]));
    const numbers = make("td", {}, number("model", "model", model[index]));
    if (exact) {
      drawn.append(bar("truth", exact[index]));
      numbers.append(number("truth", ", exact", exact[index]));
    }
    body.append(make("tr", {}, make("th", { scope: "row" }, label), drawn, numbers));
  });
  return make("table", { class: "ss-bars", "aria-label": title }, body);
}

export const nats = (loss) => loss.toFixed(2);
/** About where words are, before a tokenizer has said it. */
export const rough = (text) => text.match(/[\p{L}\p{N}\p{M}]+|[^\s\p{L}\p{N}\p{M}]/gu) ?? [];

/** Fills the box of a word: what the model sees, and below it what is hidden; the wider of both gives the width. */
export function fillWord(box, text, shown, under, token) {
  box.replaceChildren(
    make("span", { class: `ss-seen${token ? " ss-token" : ""}` }, make("bdi", {}, clip(shown))),
    make("span", { class: "ss-under" }, make("bdi", {}, under)),
    make("span", { class: "ss-wide", "aria-hidden": "true" }, clip(text)),
  );
}

/** One hidden token: the model's bars above the truth's, the real word marked, its cross-entropy below.
 *  shown: a row for each {token, p, q}, q undefined where there is no truth; a row without a token only takes
 *  its place. */
export function wordCard(word, prediction, truth, shown) {
  const { real, piece } = prediction;
  const title = make("p", { class: "ss-title" });
  const name = real ?? clip(word.text);
  title.append(make("span", { class: "ss-hidden-text" }, "x″ ", make("bdi", {}, clip(name))));
  const how = {
    mask: "hidden by [MASK]",
    random: `the model sees “${clip(word.seen[piece] ?? "")}”`,
    unchanged: "left unchanged",
  };
  title.append(make("span", { class: "ss-small" }, ` ${word.given ? "a [MASK] of your own" : how[word.kind]}`));
  const body = make("tbody");
  for (const { token, p, q } of shown) {
    const bar = (kind, value) => {
      const node = make("span", { class: `ss-bar ss-bar-${kind}` });
      node.hidden = value === 0;
      node.style.width = `${Math.min(100, Math.max(0, value * 100))}%`;
      return node;
    };
    const number = (kind, label, value) => make("span", { class: `ss-number ss-${kind}-text` },
      make("span", { class: "ss-for-readers" }, `${label} `), percent(value));
    const bars = make("td", { "aria-hidden": "true" }, bar("model", p));
    const numbers = make("td", {}, number("model", "model", p));
    if (q !== undefined) { bars.append(bar("truth", q)); numbers.append(number("truth", ", exact", q)); }
    const label = make("th", { scope: "row", title: token }, make("bdi", {}, clip(token)));
    if (token === real) label.prepend("▸ ");
    body.append(make("tr", { class: token === real ? "ss-real" : token ? "" : "ss-empty" }, label, bars, numbers));
  }
  const loss = make("p", { class: "ss-loss" });
  if (real === null) loss.append("No real word that the model knows, so no cross-entropy.");
  else {
    loss.append("−ln p(", make("bdi", { class: "ss-hidden-text" }, clip(real)), ") = ",
      make("span", { class: "ss-model-text" }, prediction.loss === null ? "∞" : nats(prediction.loss)));
    if (truth) {
      loss.append(", exact ", make("span", { class: "ss-truth-text" }, truth.loss === null ? "∞" : nats(truth.loss)));
    }
    loss.append(" nats");
  }
  const table = make("table", { class: "ss-bars", "aria-label": `Predictions for ${clip(name)}` }, body);
  return make("div", { class: "ss-card" }, title, table, loss);
}

/** The predictions in a sentence or two, to be read aloud. */
export function speech(list, predictions, truth) {
  const best = ({ top: rows }) => rows.slice(0, 2).map(([token, p]) => `${token} ${percent(p)}`).join(", ");
  const parts = predictions.slice(0, 3).map((one, index) => {
    const exactly = truth[index] ? `; exact, ${best(truth[index])}` : "";
    return `For ${clip(one.real ?? list[one.position].text)} the model says ${best(one)}${exactly}.`;
  });
  if (predictions.length > 3) parts.push(`And ${predictions.length - 3} more.`);
  return parts.join(" ");
}

/** A function that takes up the state in the address bar where it is for this widget, and shows `root`; `read` gives the
 *  state of a fragment, null where it is another's, and throws, with a sentence to say, where it cannot be read. */
export function linkFollower(root, read, take, say) {
  return () => {
    try {
      const found = read(location.hash);
      if (!found) return;
      take(found);
      root.scrollIntoView({ block: "start" });
    } catch (error) {
      say(error.message);
    }
  };
}

/** Whether a link has room for these texts. */
export const fitsLink = (...texts) => texts.every((text) => Array.from(text).length <= LONGEST_LINK);

/** Put `link` into the address bar and the clipboard, and say so; where a text of it is too long, only say that. */
export async function copyLink(link, texts, say) {
  if (!fitsLink(...texts)) {
    say(`There is no link to so long a text: a link has room for ${LONGEST_LINK} characters.`);
    return;
  }
  history.replaceState(history.state, "", link);
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link to this very state is copied.");
  } catch {
    say("The address bar now holds the link to this very state.");
  }
}
