// The backends' agents, and what each confirmed last.

import { badge, el, panel } from "../dom.js";
import { live } from "../live.js";
import { call } from "../rpc.js";
import { DataTable } from "../table.js";
import { count, span, value } from "../text.js";
import { domainLink, domainText, link, polledTable } from "./common.js";

const STALE = 30; // Seconds; agents say every ten that they live.

function standing(it) {
  if (it.failed) return badge("bad", `${count(it.failed)} gate${it.failed > 1 ? "s" : ""} failed`);
  if (it.age === null && it.channels) return badge("bad", "Never heard");
  if (it.age > STALE) return badge("bad", "Silent");
  if (it.hears === false) return badge("bad", "Hears no broker");
  if (it.unconfirmed) return badge("wait", `${count(it.unconfirmed)} unconfirmed`);
  return badge("good", "All confirmed");
}

function follows(it) {
  if (it.policy === null) return el("span", { class: "muted" }, "no bridges");
  if (it.policy === "missing") return badge("bad", "none");
  return it.policy === live.status?.policy?.digest ? badge("good", "in force") : badge("wait", "another");
}

const gates = (it) => ["open", "closed", "suspended", "failed"].filter((name) => it[name]).map((name) => `${count(it[name])} ${name}`).join(", ") || "none";

const COLUMNS = [
  { head: "Backend", name: true, cell: (it) => el("span", { class: "main" }, domainLink(it.backend, it.name)), text: (it) => domainText(it.backend, it.name), sort: (it) => it.backend },
  { head: "Standing", cell: standing, text: (it) => standing(it).textContent, sort: (it) => it.failed * 1e6 + it.unconfirmed, tight: true },
  { head: "Last heard", cell: (it) => (it.age === null ? el("span", { class: "muted" }, "never") : `${span(it.age)} ago`), sort: (it) => it.age ?? 1e12, right: true },
  { head: "Last confirmed", cell: (it) => (it.confirmed === null ? el("span", { class: "muted" }, "nothing") : `record ${it.confirmed}`), sort: (it) => it.confirmed ?? -1, right: true },
  { head: "Unconfirmed", cell: (it) => count(it.unconfirmed), sort: (it) => it.unconfirmed, right: true },
  { head: "Channels", cell: (it) => link(`channels?filter=${it.backend}`, count(it.channels)), sort: (it) => it.channels, right: true },
  { head: "Gates", cell: gates, text: gates },
  { head: "Bridges follow", cell: follows, tight: true },
  { head: "Version", cell: (it) => value(it.version, 40), text: (it) => it.version },
];

export default {
  title: "Agents",
  open(root, { signal }) {
    const place = el("div");
    root.append(panel("Agents", { flush: true, note: "one in each backend domain; each says what it enforced" }, place));
    const table = new DataTable({
      name: "agents", columns: COLUMNS, keyOf: (it) => String(it.backend), order: [4, -1],
      none: ["No domain has backends that your role shows you", "An agent appears with the first channel to its domain."],
    });
    polledTable(place, table, () => call("agent.list", {}, signal), signal, 5000);
    return null;
  },
};
