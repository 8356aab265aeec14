// Runs the page's anywidgets without a kernel: each gets its module, its traits as they were saved, and a place to draw.

const STATE = "application/vnd.jupyter.widget-state+json";
const REFERENCE = "IPY_MODEL_";

/** The traits of one widget, with anywidget's interface; there is nobody to send messages to. */
class Model {
  constructor(host, traits) {
    this.host = host;
    this.traits = traits;
    this.listeners = new Map();
    this.widget_manager = { get_model: (reference) => host.model(reference) };
  }
  get(name) {
    return this.traits[name];
  }
  set(name, value) {
    const changes = typeof name === "object" ? name : { [name]: value };
    for (const [key, next] of Object.entries(changes)) {
      if (Object.is(this.traits[key], next)) continue;
      this.traits[key] = next;
      this.emit(`change:${key}`, next);
      this.emit("change", next);
    }
  }
  save_changes() {}
  on(events, callback) {
    for (const event of events.split(/\s+/)) this.listeners.set(event, [...(this.listeners.get(event) ?? []), callback]);
  }
  off(events, callback) {
    if (!events) return this.listeners.clear();
    for (const event of events.split(/\s+/))
      this.listeners.set(event, callback ? (this.listeners.get(event) ?? []).filter((one) => one !== callback) : []);
  }
  emit(event, ...values) {
    for (const callback of this.listeners.get(event) ?? []) callback(...values);
  }
  send() {
    throw new Error("this page has no kernel");
  }
}

/** All widgets of the page. */
class Host {
  constructor(states) {
    this.states = states;
    this.models = new Map();
    this.modules = new Map();
  }
  model(reference) {
    const id = String(reference).replace(REFERENCE, "");
    if (!this.models.has(id)) {
      const { state, buffers = [] } = this.states[id];
      const traits = structuredClone(state);
      for (const { path, data } of buffers) {
        const parent = path.slice(0, -1).reduce((value, key) => value[key], traits);
        parent[path.at(-1)] = new DataView(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer);
      }
      this.models.set(id, new Model(this, traits));
    }
    return this.models.get(id);
  }
  async definition(source, model) {
    if (!this.modules.has(source)) {
      const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      this.modules.set(source, import(address).then(({ default: d }) => (typeof d === "function" ? d() : d)));
    }
    const definition = await this.modules.get(source);
    model.initialized ??= Promise.resolve(definition.initialize?.({ model, experimental }));
    await model.initialized;
    return definition;
  }
  async show(id, place) {
    const model = this.model(id);
    if (!model.get("_esm")) {
      const children = (model.get("children") ?? []).map((child) => child.replace(REFERENCE, ""));
      for (const child of children) await this.show(child, place);
      return;
    }
    const style = model.get("_css");
    if (style && ![...document.querySelectorAll("style")].some((one) => one.textContent === style)) {
      document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
    }
    const element = document.createElement("div");
    const definition = await this.definition(model.get("_esm"), model);
    place.append(element);
    await definition.render?.({ model, el: element, experimental });
  }
}

const experimental = { invoke: () => Promise.reject(new Error("this page has no kernel")) };
const saved = document.querySelector(`script[type="${STATE}"]`);
const host = new Host(saved ? JSON.parse(saved.textContent).state : {});
for (const place of document.querySelectorAll(".widget-place")) {
  host
    .show(place.dataset.modelId, place)
    .catch((error) => {
      place.textContent = "This figure could not start in your browser.";
      console.error(error);
    })
    .finally(() => place.classList.add("widget-ready"));
}
