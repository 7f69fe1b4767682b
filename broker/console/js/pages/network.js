// The network: ports and the class each carries, who may exchange frames, and what was refused.

import { el, failure, loading, panel, set } from "../dom.js";
import { live } from "../live.js";
import { enforcement, keyOf } from "../model.js";
import { call } from "../rpc.js";
import { DataTable } from "../table.js";
import { clock, count } from "../text.js";
import { VERDICT_CHOICE, channelLink, domainLink, domainText, enforced, label, link, polledTable, verdict } from "./common.js";

const PORTS = [
  { head: "Port", cell: (it) => el("span", { class: "main" }, channelLink(it, `vif${it.frontend}.${it.device}`)), text: (it) => `vif${it.frontend}.${it.device}`, sort: (it) => it.frontend * 1000 + Number(it.device), tight: true },
  { head: "Domain", cell: (it) => domainLink(it.frontend, it.frontend_name), text: (it) => domainText(it.frontend, it.frontend_name), sort: (it) => it.frontend_name ?? "" },
  { head: "Class", cell: (it) => label(it.frontend_label), text: (it) => it.frontend_label, sort: (it) => it.frontend_label ?? "" },
  { head: "Bridged by", cell: (it) => domainLink(it.backend), text: (it) => domainText(it.backend), sort: (it) => it.backend },
  { head: "Decision", cell: verdict, text: (it) => it.verdict, sort: (it) => it.verdict, tight: true },
  { head: "Port is", cell: enforced, text: (it) => enforcement(it).word, sort: (it) => enforcement(it).word, tight: true },
];

const CLASSES = [
  { head: "Class", cell: (it) => el("span", { class: "main" }, label(it.name)), text: (it) => it.name, sort: (it) => it.name ?? "" },
  { head: "Ports open", cell: (it) => count(it.open), sort: (it) => it.open, right: true },
  { head: "Ports not open", cell: (it) => count(it.shut), sort: (it) => it.shut, right: true },
  { head: "Exchanges frames with", cell: (it) => (it.peers === null ? el("span", { class: "muted" }, "not shown to your role") : it.peers.length ? it.peers.slice(0, 12).map((name) => [label(name), " "]).concat(it.peers.length > 12 ? `and ${count(it.peers.length - 12)} more` : "") : "nobody"), text: (it) => it.peers?.join(" ") },
];

const DROPS = [
  { head: "From", cell: (it) => label(it.sender), text: (it) => it.sender, sort: (it) => it.sender ?? "" },
  { head: "To", cell: (it) => label(it.receiver), text: (it) => it.receiver, sort: (it) => it.receiver ?? "" },
  { head: "Packets", cell: (it) => count(it.packets), sort: (it) => it.packets, right: true },
  { head: "Bytes", cell: (it) => count(it.bytes), sort: (it) => it.bytes, right: true },
  { head: "Said by", cell: (it) => domainLink(it.backend, it.backend_name), text: (it) => domainText(it.backend, it.backend_name), sort: (it) => it.backend },
  { head: "As of", cell: (it) => clock(it.at), sort: (it) => it.at, right: true },
];

export default {
  title: "Network",
  open(root, { signal, query }) {
    const [ports, classes, drops] = [el("div"), el("div"), el("div")];
    const omitted = el("span", { class: "muted" });
    root.append(panel("Ports", { flush: true, note: "each is a vif; its class is its domain's label" }, ports),
      panel("Classes", { flush: true, note: "labels that have ports", tools: link("reach?class=frames", "Graph") }, classes),
      panel("Drops", { flush: true, note: "packets refused between labels, as agents report them", tools: omitted }, drops));
    const table = new DataTable({ name: "ports", columns: PORTS, keyOf, filter: query.get("filter") ?? "", none: ["There are no ports that your role shows you", ""], choices: [VERDICT_CHOICE] });
    const sums = new DataTable({ name: "classes", columns: CLASSES, keyOf: (it) => String(it.name), order: [0, 1], none: ["No label has ports", ""] });
    const refused = new DataTable({ name: "drops", columns: DROPS, keyOf: (it) => `${it.backend}/${it.sender}/${it.receiver}`, order: [2, -1], none: ["Nothing was refused", "No agent reports packets between labels that may not talk."] });
    let peers = null;
    call("policy.picture", {}, signal).then((it) => { peers = exchange(it); update(); }, () => {});
    const load = () => call("net.drops", {}, signal).then((list) => {
      const left = list.reduce((sum, it) => sum + it.omitted, 0);
      set(omitted, left > 0 && `${count(left)} pairs did not fit`);
      return list.flatMap((it) => it.drops.map((drop) => ({ ...drop, backend: it.backend, backend_name: it.backend_name, at: it.at })));
    });
    polledTable(drops, refused, load, signal);
    function update() {
      const error = live.errors["channel.list"];
      if (!live.channels) {
        for (const place of [ports, classes]) if (!place.firstChild || error) set(place, error ? failure(error) : loading());
        return;
      }
      const vifs = [...live.channels.values()].filter((it) => it.class === "vif");
      if (!ports.contains(table.element)) { set(ports, table.element); set(classes, sums.element); }
      table.show(vifs);
      sums.show(byClass(vifs, peers));
    }
    return update;
  },
};

/** For each label, those it may exchange frames with. */
function exchange({ nodes, edges, classes }) {
  const kind = classes.includes("frames") ? "frames" : "vif";
  const found = new Map();
  for (const it of edges.filter((edge) => edge.class === kind && (kind === "frames" || edge.both))) {
    for (const [one, other] of [[it.frontend, it.backend], [it.backend, it.frontend]]) {
      for (const name of nodes[one].labels) found.set(name, new Set([...(found.get(name) ?? []), ...nodes[other].labels]));
    }
  }
  return found;
}

function byClass(vifs, peers) {
  const found = new Map();
  for (const it of vifs) {
    const row = found.get(it.frontend_label) ?? { name: it.frontend_label, open: 0, shut: 0, peers: peers && [...(peers.get(it.frontend_label) ?? [])] };
    if (enforcement(it).word === "Open") row.open += 1;
    else row.shut += 1;
    found.set(it.frontend_label, row);
  }
  return [...found.values()];
}
