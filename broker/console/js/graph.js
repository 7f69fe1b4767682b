// The graph of labels: a ring of nodes, joined by who may and who does. Pointing at one dims the rest.

import { set, svg } from "./dom.js";
import { count, plain } from "./text.js";

const WIDTH = 172;
const HEIGHT = 40;
const CUT = 22;
const LOOP = 34; // Of a line from a node to itself, beside it.

export function drawGraph(place, { nodes, edges, walls, open, domains, frames }) {
  const across = Math.max(330, nodes.length * 34);
  const down = Math.max(150, nodes.length * 25);
  const middle = { x: across + WIDTH / 2 + LOOP, y: down + HEIGHT / 2 + 8 };
  const at = nodes.map((_, number) => {
    const angle = (number / nodes.length) * 2 * Math.PI - Math.PI / 2;
    return { x: middle.x + across * Math.cos(angle), y: middle.y + down * Math.sin(angle) };
  });
  const drawn = [];
  const lines = [];
  for (const it of edges) {
    const does = (open.get(`${it.frontend}-${it.backend}`) ?? 0) + (it.both && it.frontend !== it.backend ? open.get(`${it.backend}-${it.frontend}`) ?? 0 : 0);
    const words = `${name(nodes[it.frontend])} ${it.reading ? "may read from" : frames || it.both ? "and" : "may attach to"} ${name(nodes[it.backend])}${frames ? " exchange frames" : ""}${does ? `: ${count(does)} open` : ""}`;
    const line = svg("path", { class: does ? "edge does" : "edge", d: path(at[it.frontend], at[it.backend], middle) }, svg("title", {}, words));
    lines.push(line);
    drawn.push({ line, ends: [it.frontend, it.backend] });
  }
  for (const it of walls) {
    const words = `${name(nodes[it.one])} and ${name(nodes[it.other])} never run together: ${it.names.map(plain).join(", ")}`;
    const line = svg("path", { class: "wall", d: path(at[it.one], at[it.other], middle, 0.82) }, svg("title", {}, words));
    lines.push(line);
    drawn.push({ line, ends: [it.one, it.other] });
  }
  const boxes = nodes.map((node, number) => box(node, at[number], domains.get(number) ?? 0));
  const light = (number) => {
    const near = new Set([number]);
    for (const { ends } of drawn) if (ends.includes(number)) ends.forEach((end) => near.add(end));
    drawn.forEach(({ line, ends }) => line.classList.toggle("dim", number !== null && !ends.includes(number)));
    boxes.forEach((it, own) => it.classList.toggle("dim", number !== null && !near.has(own)));
  };
  boxes.forEach((it, number) => {
    it.addEventListener("pointerenter", () => light(number));
    it.addEventListener("pointerleave", () => light(null));
  });
  const width = 2 * middle.x;
  const height = 2 * middle.y;
  set(place, svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Labels, joined where they may talk; the table below says the same" }, lines, boxes));
  place.scrollLeft = (place.scrollWidth - place.clientWidth) / 2;
}

const name = (node) => node.labels.map(plain).join(", ");

/** A curve bent to the middle; a ring where one meets itself. */
function path(from, to, middle, bend = 0.45) {
  if (from === to) {
    const side = from.x < middle.x ? -1 : 1;
    const x = from.x + side * (WIDTH / 2 - 4);
    return `M${x},${from.y - 8} c${side * 34},-16 ${side * 34},32 0,16`;
  }
  const x = (from.x + to.x) / 2 + (middle.x - (from.x + to.x) / 2) * bend;
  const y = (from.y + to.y) / 2 + (middle.y - (from.y + to.y) / 2) * bend;
  return `M${from.x},${from.y} Q${x},${y} ${to.x},${to.y}`;
}

function box(node, { x, y }, running) {
  const [first, ...others] = node.labels;
  const words = plain(first);
  const shown = (words.length > CUT ? `${words.slice(0, CUT - 1)}…` : words) + (others.length ? ` +${count(others.length)}` : "");
  const group = svg("g", {}, svg("title", {}, `${name(node)}\ntypes: ${node.ste.map(plain).join(", ")}`),
    svg("rect", { x: x - WIDTH / 2, y: y - HEIGHT / 2, width: WIDTH, height: HEIGHT, rx: 6 }),
    svg("text", { x, y: y - 3, "text-anchor": "middle" }, shown),
    svg("text", { class: "sub", x, y: y + 12, "text-anchor": "middle" }, running ? `${count(running)} running` : "none running"));
  return group;
}
