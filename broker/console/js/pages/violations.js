// Who broke a protocol or reached for what is not his, the evidence, and what it led to.

import { badge, el, later, panel } from "../dom.js";
import { live } from "../live.js";
import { call } from "../rpc.js";
import { DataTable } from "../table.js";
import { clock, count, value } from "../text.js";
import { domainLink, link, why } from "./common.js";

const LAST = 200;
const KINDS = ["violation", "sanctioned", "quarantined", "alarm"];
const WORDS = {
  violation: ["wait", "Violation"], sanctioned: ["bad", "Sanction"], quarantined: ["bad", "Quarantine"], alarm: ["bad", "Alarm"],
};

const COLUMNS = [
  { head: "What", cell: (it) => badge(WORDS[it.event][0], it.event === "sanctioned" ? `Sanction: ${it.action}` : WORDS[it.event][1]), text: (it) => `${it.event} ${it.action ?? ""}`, sort: (it) => it.event, tight: true },
  { head: "When", cell: (it) => clock(it.t), text: (it) => clock(it.t), sort: (it) => it.t, tight: true },
  { head: "Party", cell: (it) => [it.party && [value(it.party), " "], it.domid !== undefined ? domainLink(it.domid) : value(it.uuid)], text: (it) => `${it.party} ${it.domid} ${live.domain(it.domid)?.name ?? ""} ${it.uuid}`, sort: (it) => it.domid ?? -1 },
  { head: "On", name: true, cell: (it) => on(it.on), text: (it) => it.on, sort: (it) => it.on ?? "" },
  { head: "Rule", cell: (it) => (it.rule ? el("code", {}, value(it.rule, 60)) : value(null)), text: (it) => it.rule, sort: (it) => it.rule ?? "" },
  { head: "Evidence", cell: (it) => why(it.detail), text: (it) => it.detail },
  { head: "Record", cell: (it) => el("a", { href: `#/audit?before=${it.n + 1}` }, count(it.n)), sort: (it) => it.n, right: true },
];

export default {
  title: "Violations",
  open(root, { signal, query }) {
    const place = el("div");
    root.append(panel("Violations and what they led to", { flush: true, note: `from the audit log: the last ${LAST} of each kind` }, place));
    const table = new DataTable({
      name: "violations", columns: COLUMNS, keyOf: (it) => String(it.n), order: [6, -1], filter: query.get("filter") ?? "",
      none: ["Nobody broke a rule", "What domains do to their channels' protocols is written here, with the party and the evidence."],
      choices: [{ name: "Kind", options: KINDS.map((kind) => [kind, WORDS[kind][1], (it) => it.event === kind]) }],
    });
    let held = live.status?.journal_seq;
    later(place, load(signal), (rows) => { table.show(rows); return table.element; });
    return () => {
      const now = live.status?.journal_seq;
      if (now === held || !place.contains(table.element)) return;
      held = now;
      load(signal).then((rows) => table.show(rows), () => {});
    };
  },
};

// As the broker writes a channel: `vif/3/0 -> 0`, or by the path of its record.
const SHORT = /^([\w-]+)\/(\d+)\/(\d+) -> (\d+)$/;
const PATH = /^\/broker\/v1\/decision\/(\d+)\/([\w-]+)\/(\d+)\/(\d+)$/;

/** A channel as a link to it, or what else it was. */
function on(text) {
  const [, kind, frontend, device, backend] = SHORT.exec(text ?? "") ?? [];
  if (kind) return link(`channel/${kind}/${frontend}/${device}/${backend}`, `${kind} ${device} of domain ${frontend}`);
  const [, end, sort, front, number] = PATH.exec(text ?? "") ?? [];
  return end ? on(`${sort}/${front}/${number} -> ${end}`) : value(text, 80);
}

async function load(signal) {
  const pages = await Promise.all(KINDS.map((event) => call("audit.list", { event, last: LAST }, signal)));
  return pages.flatMap((page) => page.records.map(read));
}

/** A record as a row: who, on what, and why. */
function read({ n, line }) {
  const it = JSON.parse(line);
  const [, party, rest] = /^(frontend|backend|both|nobody|toolstack): (.*)$/s.exec(it.detail ?? "") ?? [];
  const known = it.domid === undefined && [...(live.domains?.values() ?? [])].find((domain) => domain.uuid === it.uuid);
  return {
    ...it, ...(known && { domid: known.domid }), n, party: it.party ?? party ?? null, detail: it.reason ?? rest ?? it.detail,
    on: it.channel ?? it.path ?? (it.event === "alarm" ? it.subject : it.uuid),
  };
}
