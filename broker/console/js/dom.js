// Elements, made by hand. Text only ever gets in as text: there is no way here to write markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.setAttribute("class", value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  put(element, children);
  return element;
}

/** Append children: elements, texts, lists of them; nothing for null and false. */
export function put(element, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

export const el = (tag, properties, ...children) =>
  fill(document.createElement(tag), properties, children);

export const svg = (tag, properties, ...children) =>
  fill(document.createElementNS(SVG, tag), properties, children);

/** Put these children in the place of all there are. */
export function set(element, ...children) {
  element.replaceChildren();
  return put(element, children);
}

const SHAPES = {
  good: ["M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zm3.6 5.2-4.3 5a.8.8 0 0 1-1.2 0L4.2 9.3l1.1-1.1 1.4 1.3 3.7-4.4z"],
  bad: ["M3 1h10a2 2 0 0 1 2 2v10a2 2 0 0 1-2 2H3a2 2 0 0 1-2-2V3a2 2 0 0 1 2-2zm2.4 3.3L4.3 5.4 6.9 8l-2.6 2.6 1.1 1.1L8 9.1l2.6 2.6 1.1-1.1L9.1 8l2.6-2.6-1.1-1.1L8 6.9z"],
  wait: ["M8 .8 15.6 14.6H.4zM7.2 5.6v4.6h1.6V5.6zm0 5.6v1.7h1.6v-1.7z"],
  none: ["M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zm0 1.6a4.9 4.9 0 1 1 0 9.8 4.9 4.9 0 0 1 0-9.8z"],
};

/** A status by its shape, so that no colour has to be told apart: circle, square, triangle, ring. */
export const shape = (kind) =>
  svg("svg", { class: "shape", viewBox: "0 0 16 16", "aria-hidden": "true" },
    SHAPES[kind].map((d) => svg("path", { d, fill: "currentColor", "fill-rule": "evenodd" })));

export const badge = (kind, words) => el("span", { class: `badge ${kind}` }, shape(kind), words);

export function panel(title, { note, tools, flush } = {}, ...children) {
  const head = el("header", {}, el("h2", {}, title), note && el("span", { class: "muted" }, note), tools);
  return el("section", { class: "panel" }, head,
    flush ? children : el("div", { class: "body" }, children));
}

/** What stands where something would: nothing yet, nothing at all, or why not. */
export const empty = (words, more) =>
  el("div", { class: "state" }, shape("none"), el("strong", {}, words), more && el("span", {}, more));

export const loading = (what = "Loading") =>
  el("div", { class: "skeleton", role: "status" }, el("b", { class: "hidden" }, what),
    Array.from({ length: 5 }, () => el("span", { "aria-hidden": "true" })));

export function failure(error) {
  const denied = error.code === "denied";
  return el("div", { class: denied ? "state denied" : "state error", role: denied ? null : "alert" },
    shape(denied ? "none" : "bad"),
    el("strong", {}, denied ? "Your role does not show you this" : "This cannot be shown now"),
    el("span", { class: "value" }, error.message));
}

/** Show what a promise brings: loading, then the elements, or why not. */
export function later(place, promise, show) {
  set(place, loading());
  place.setAttribute("aria-busy", "true");
  return promise.then((it) => set(place, show(it)), (error) => {
    if (error.name !== "AbortError") set(place, failure(error));
  }).finally(() => place.removeAttribute("aria-busy"));
}
