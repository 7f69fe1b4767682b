// Who may talk to whom, by the policy; and who does, by the channels that are open.

import { el, empty, later, panel, set } from "../dom.js";
import { live } from "../live.js";
import { enforcement } from "../model.js";
import { call } from "../rpc.js";
import { count, plain, value } from "../text.js";
import { drawGraph } from "../graph.js";
import { link } from "./common.js";

const MOST_NODES = 24;
const FRAMES = "frames";

export default {
  title: "Who may talk to whom",
  open(root, { query, signal }) {
    const place = el("div");
    root.append(place);
    place.style.display = "contents";
    let held;
    let redraw = null;
    return () => {
      const wanted = live.status?.policy?.digest ?? (live.errors.status ? "unknown" : undefined);
      if (wanted !== undefined && wanted !== held) {
        held = wanted;
        later(place, call("policy.picture", {}, signal), (picture) => {
          const page = new Reach(picture, query.get("class"));
          redraw = () => page.update();
          redraw();
          return page.element;
        });
      }
      redraw?.();
    };
  },
};

class Reach {
  constructor(picture, kind) {
    this.picture = picture;
    this.kind = picture.classes.includes(kind) ? kind : picture.classes[0];
    this.numbers = new Map(picture.nodes.flatMap((node, number) => node.labels.map((name) => [name, number])));
    this.tabs = el("div", { class: "tabs", role: "group", "aria-label": "Kind of channel" }, picture.classes.map((name) => el("button", {
      type: "button", "aria-pressed": String(name === this.kind),
      onclick: (event) => {
        this.kind = name;
        for (const it of this.tabs.children) it.setAttribute("aria-pressed", String(it === event.currentTarget));
        this.seen = null;
        this.update();
      },
    }, plain(name))));
    this.graph = el("div", { class: "graph", tabindex: "0", role: "region", "aria-label": "Graph" });
    this.matrix = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of who may talk to whom" });
    const legend = el("div", { class: "legend" }, el("span", {}, el("i"), "may"), el("span", {}, el("i", { class: "does" }), "may, and does"),
      el("span", {}, el("i", { class: "wall" }), "never run together"));
    this.element = el("div", { class: "content-in" },
      panel(`By policy ${plain(picture.title)}`, { flush: true, tools: [legend, this.tabs] }, this.graph),
      panel("The same as a table", { flush: true, note: "frontends down, backends across; the number is of open channels" }, this.matrix));
    this.element.style.display = "contents";
  }

  /** Open channels by frontend's and backend's node; and domains by node. */
  update() {
    const open = new Map();
    for (const it of live.channels?.values() ?? []) {
      if (it.class !== this.kind || it.verdict !== "grant" || enforcement(it).word !== "Open") continue;
      const key = `${this.numbers.get(it.frontend_label)}-${this.numbers.get(it.backend_label)}`;
      open.set(key, (open.get(key) ?? 0) + 1);
    }
    const domains = new Map();
    for (const it of live.domains?.values() ?? []) {
      const number = this.numbers.get(it.label);
      if (number !== undefined) domains.set(number, (domains.get(number) ?? 0) + 1);
    }
    const seen = JSON.stringify([[...open], [...domains]]);
    if (seen === this.seen) return;
    this.seen = seen;
    const { nodes, edges, walls } = this.picture;
    const shown = edges.filter((it) => it.class === this.kind);
    if (!shown.length && !walls.length) {
      for (const place of [this.graph, this.matrix]) set(place, empty("Nobody may", "No label is granted a channel of this class."));
      return;
    }
    if (nodes.length <= MOST_NODES) drawGraph(this.graph, { nodes, edges: shown, walls, open, domains, frames: this.kind === FRAMES });
    else set(this.graph, empty(`${count(nodes.length)} kinds of labels are too many to draw`, "The table below shows them."));
    this.#table(nodes, shown, open);
  }

  #table(nodes, edges, open) {
    const may = new Map();
    for (const it of edges) {
      may.set(`${it.frontend}-${it.backend}`, it);
      if (it.both) may.set(`${it.backend}-${it.frontend}`, it);
    }
    const columns = nodes.map((_, number) => number).filter((number) => edges.some((it) => it.backend === number || (it.both && it.frontend === number)));
    const rows = nodes.map((_, number) => number).filter((number) => edges.some((it) => it.frontend === number || (it.both && it.backend === number)));
    const name = (number) => value(called(nodes[number]), 40);
    set(this.matrix, el("table", { class: "matrix" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", {}, "Frontend")), columns.map((number) => el("th", { scope: "col" }, el("span", {}, name(number)))))),
      el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, el("span", {}, name(row))), columns.map((column) => {
        const edge = may.get(`${row}-${column}`);
        const does = open.get(`${row}-${column}`);
        if (!edge) return el("td", { class: "muted" }, "·", el("span", { class: "hidden" }, "no"));
        const over = edge.resources.length ? `over ${edge.resources.map(plain).join(", ")}` : "";
        const words = `${edge.reading ? "may read" : "may"}${does ? `, ${count(does)}` : ""}`;
        return el("td", { title: over }, does ? link(`channels?filter=${encodeURIComponent(`${this.kind} ${nodes[row].labels[0]}`)}`, words) : words);
      }))))));
  }
}

export function called(node) {
  const [first, ...others] = node.labels;
  return others.length ? `${plain(first)} +${count(others.length)}` : plain(first);
}
