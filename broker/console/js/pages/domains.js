// The live domains with their labels, and the labels stored for those that do not run.

import { badge, el, later, panel, set } from "../dom.js";
import { live } from "../live.js";
import { STANDINGS } from "../model.js";
import { call } from "../rpc.js";
import { DataTable } from "../table.js";
import { clock, count, value } from "../text.js";
import { label, link, liveTable, why } from "./common.js";

const standing = (it) => badge(STANDINGS[it.status].kind, STANDINGS[it.status].word);

const DOMAINS = [
  { head: "Name", name: true, cell: (it) => [el("span", { class: "main" }, link(`domain/${it.domid}`, it.name ? value(it.name, 60) : `domain ${it.domid}`)), !it.running && [" ", badge("none", "Dying")]], text: (it) => it.name, sort: (it) => it.name ?? "" },
  { head: "Domid", cell: (it) => it.domid, text: (it) => String(it.domid), sort: (it) => it.domid, right: true },
  { head: "Label", cell: (it) => label(it.label), text: (it) => it.label, sort: (it) => it.label ?? "" },
  { head: "Standing", cell: standing, text: (it) => it.status, sort: (it) => it.status, tight: true },
  { head: "Granted", cell: (it) => count(it.granted), sort: (it) => it.granted, right: true },
  { head: "Denied", cell: (it) => count(it.denied), sort: (it) => it.denied, right: true },
  { head: "Label set by", tight: true, cell: (it) => value(it.set_by, 48), text: (it) => it.set_by, sort: (it) => it.set_by ?? "" },
  { head: "Why", cell: (it) => (it.reason ? why(it.reason) : null), text: (it) => it.reason },
];

const LABELS = [
  { head: "For", name: true, cell: (it) => el("span", { class: "main" }, value((it.bound_by === "uuid" ? it.uuid : it.name) ?? it.name ?? it.uuid, 60)), text: (it) => `${it.name} ${it.uuid}`, sort: (it) => it.name ?? it.uuid ?? "" },
  { head: "Stored for", cell: (it) => (it.bound_by === "uuid" ? "its uuid" : "its name"), text: (it) => it.bound_by, sort: (it) => it.bound_by ?? "" },
  { head: "Label", cell: (it) => label(it.label), text: (it) => it.label, sort: (it) => it.label ?? "" },
  { head: "Policy", cell: (it) => value(it.policy, 40), text: (it) => it.policy, sort: (it) => it.policy ?? "" },
  { head: "Running as", cell: (it) => (it.domids.length ? it.domids.map((domid, n) => [n > 0 && ", ", link(`domain/${domid}`, domid)]) : value(null)), sort: (it) => it.domids.length },
  { head: "Set by", cell: (it) => value(it.set_by, 48), text: (it) => it.set_by, sort: (it) => it.set_by ?? "" },
  { head: "Set", cell: (it) => (it.set_at ? clock(it.set_at) : value(null)), sort: (it) => it.set_at ?? 0, right: true },
];

export default {
  title: "Domains and labels",
  open(root, { query, signal }) {
    const place = el("div");
    const stored = query.get("show") === "labels";
    const tab = (words, path, pressed) => el("button", { type: "button", "aria-pressed": String(pressed), onclick: () => { location.hash = path; } }, words);
    root.append(panel(stored ? "Stored labels" : "Live domains", {
      flush: true,
      tools: el("div", { class: "tabs" }, tab("Domains", "#/domains", !stored), tab("Stored labels", "#/domains?show=labels", stored)),
    }, place));
    const filter = query.get("filter") ?? "";
    if (stored) {
      const table = new DataTable({ name: "labels", columns: LABELS, keyOf: (it) => `${it.bound_by}:${it.uuid}:${it.name}`, none: ["No label is stored", "brokerctl label set NAME LABEL"], filter });
      later(place, call("label.list", {}, signal), (list) => {
        table.show(list);
        return table.element;
      });
      return null;
    }
    const table = new DataTable({
      name: "domains", columns: DOMAINS, keyOf: (it) => String(it.domid), filter, order: [1, 1],
      none: ["No domain runs that your role shows you", ""],
      choices: [{ name: "Standing", options: Object.entries(STANDINGS).map(([name, { word }]) => [name, word, (it) => it.status === name]) }],
      chosen: Object.fromEntries(query),
    });
    table.marks = true;
    return liveTable(place, table, "domain.list", () => live.domains && [...live.domains.values()]);
  },
};
