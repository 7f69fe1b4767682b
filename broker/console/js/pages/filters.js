// Filter profiles: what there is, the vifs that have them, who attached them, what they did.

import { badge, el, panel } from "../dom.js";
import { call } from "../rpc.js";
import { DataTable } from "../table.js";
import { clock, count, plain, value } from "../text.js";
import { channelLink, domainLink, domainText, link, polledTable, ruleLink, why } from "./common.js";

const MOST = 6;

export const profileLink = (name) => link(`filter/${encodeURIComponent(name)}`, value(name, 48));

/** The first few of a list, and how many there are besides. */
export const few = (list, show, most = MOST) => (list.length ? [list.slice(0, most).map((it, n) => [n > 0 && ", ", show(it)]), list.length > most && ` and ${count(list.length - most)} more`] : value(null));

/** Variables and their values, a line each. */
export const given = (variables) => el("div", {}, Object.entries(variables).map(([name, values]) =>
  el("div", {}, el("span", { class: "muted" }, value(name), " "), few(values, (it) => value(it, 60)))));

const PROFILES = [
  { head: "Profile", cell: (it) => el("span", { class: "main" }, profileLink(it.name)), text: (it) => it.name, sort: (it) => it.name, tight: true },
  { head: "What it is for", cell: (it) => why(it.description), text: (it) => it.description },
  { head: "From", cell: (it) => (it.shipped ? "the package" : badge("none", "stored here")), text: (it) => (it.shipped ? "shipped" : "stored"), sort: (it) => Number(it.shipped), tight: true },
  { head: "Variables", cell: (it) => few(it.variables, (one) => value(one, 40)), text: (it) => it.variables.join(" ") },
  { head: "Uses", cell: (it) => count(it.users.length), text: (it) => it.users.join(" "), sort: (it) => it.users.length, right: true },
];

export const VIFS = [
  { head: "Vif", cell: (it) => el("span", { class: "main" }, vifLink(it)), text: (it) => `vif${it.frontend}.${it.device}`, sort: (it) => it.frontend * 1000 + Number(it.device), tight: true },
  { head: "Domain", cell: (it) => domainLink(it.frontend, it.frontend_name), text: (it) => domainText(it.frontend, it.frontend_name), sort: (it) => it.frontend_name ?? "" },
  { head: "Profiles", name: true, cell: attachedBy, text: (it) => [...it.profiles, ...it.from_where].join(" ") },
  { head: "Addresses and variables", cell: (it) => given(it.variables), text: (it) => Object.values(it.variables).flat().join(" ") },
  { head: "Learned", cell: learned, text: (it) => it.leases.map((lease) => lease.address).join(" "), sort: (it) => it.leases.length },
  { head: "Filters", cell: fits, text: (it) => (it.problem ? `closed ${it.problem}` : "fit"), sort: (it) => Number(Boolean(it.problem)) },
];

const ATTACHED = [
  { head: "Profile", cell: (it) => el("span", { class: "main" }, profileLink(it.name)), text: (it) => it.name, sort: (it) => it.name, tight: true },
  { head: "Stored for", name: true, cell: (it) => [it.bound_by === "uuid" ? "uuid " : "name ", value(it.key)], text: (it) => it.key, sort: (it) => it.key },
  { head: "Vif", cell: (it) => (it.device === null ? "all" : value(it.device)), text: (it) => it.device ?? "all", sort: (it) => it.device ?? "", tight: true },
  { head: "Given", cell: (it) => given(it.given), text: (it) => Object.values(it.given).flat().join(" ") },
  { head: "By", cell: (it) => value(it.set_by), text: (it) => it.set_by, sort: (it) => it.set_by },
  { head: "When", cell: (it) => clock(it.set_at), sort: (it) => it.set_at, right: true },
];

export const COUNTS = [
  { head: "Rule", cell: (it) => el("span", { class: "main" }, link(`filter/${encodeURIComponent(profileOf(it.rule))}`, value(it.rule, 70))), text: (it) => it.rule, sort: (it) => it.rule },
  { head: "Packets", cell: (it) => count(it.packets), sort: (it) => it.packets, right: true },
  { head: "Bytes", cell: (it) => count(it.bytes), sort: (it) => it.bytes, right: true },
  { head: "Said by", cell: (it) => domainLink(it.backend, it.backend_name), text: (it) => domainText(it.backend, it.backend_name), sort: (it) => it.backend },
  { head: "As of", cell: (it) => clock(it.at), sort: (it) => it.at, right: true },
];

export const profileOf = (rule) => String(rule).replace(/\/[^/]*$/, "");

const vifLink = (it) => channelLink({ class: "vif", frontend: it.frontend, device: it.device, backend: it.backend }, plain(`vif${it.frontend}.${it.device}`));

export function attachedBy(it) {
  return el("div", {}, it.profiles.map((name, n) => {
    const where = it.from_where[n] ?? "";
    const place = /:\d+:\d+$/.test(where) ? ["at ", ruleLink(where)] : el("span", { title: plain(where) }, "by an administrator");
    return el("div", {}, profileLink(name), " ", el("span", { class: "small muted" }, place));
  }));
}

function learned(it) {
  if (it.leases.length) return el("div", {}, it.leases.map((lease) => el("div", {}, value(lease.address), el("span", { class: "small muted" }, ` until ${clock(lease.until)}`))));
  return it.learned.length ? el("span", { class: "muted" }, "nothing yet") : value(null);
}

function fits(it) {
  return it.problem ? el("div", {}, badge("bad", "Closed"), why(it.problem)) : badge("good", "Fit");
}

/** The counts of all backends' rules, one row each. */
export const rulesOf = (reports) => reports.flatMap((it) => it.rules.map((rule) => ({ ...rule, backend: it.backend, backend_name: it.backend_name, at: it.at })));

/** What agents report; nothing where the role may not ask, so that the vifs are shown without it. */
const reported = (signal) => call("filter.counts", {}, signal).catch((error) => {
  if (error.code === "denied") return [];
  throw error;
});

/** The vifs with profiles, each with what it learned. */
export async function vifsAndLeases(signal) {
  const [vifs, reports] = await Promise.all([call("filter.vifs", {}, signal), reported(signal)]);
  const leases = new Map();
  for (const lease of reports.flatMap((it) => it.learned)) {
    const key = `${lease.frontend}/${lease.device}`;
    leases.set(key, [...(leases.get(key) ?? []), lease]);
  }
  return vifs.map((it) => ({ ...it, leases: leases.get(`${it.frontend}/${it.device}`) ?? [] }));
}

const CHOICE = {
  name: "Filters",
  options: [["fit", "Fit", (it) => !it.problem], ["closed", "Closed by them", (it) => Boolean(it.problem)]],
};

export default {
  title: "Filters",
  open(root, { signal, query }) {
    const [profiles, vifs, attached, counts] = [el("div"), el("div"), el("div"), el("div")];
    root.append(
      panel("Vifs with profiles", { flush: true, note: "all profiles of a vif must accept a frame" }, vifs),
      panel("Profiles", { flush: true, note: "what a vif may send and be sent, beyond its label" }, profiles),
      panel("Attached by administrators", { flush: true, note: "the policy attaches others" }, attached),
      panel("What rules decided", { flush: true, note: "packets, as agents report them" }, counts));
    const ask = (name) => () => call(name, {}, signal);
    polledTable(vifs, new DataTable({ name: "vifs", columns: VIFS, keyOf: (it) => `${it.frontend}/${it.device}/${it.backend}`, filter: query.get("filter") ?? "", choices: [CHOICE], chosen: Object.fromEntries(query), none: ["No vif has profiles that your role shows you", "brokerctl filter attach, or filters in the policy."] }), () => vifsAndLeases(signal), signal);
    polledTable(profiles, new DataTable({ name: "profiles", columns: PROFILES, keyOf: (it) => it.name, order: [4, -1], none: ["There are no profiles", ""] }), ask("filter.list"), signal);
    polledTable(attached, new DataTable({ name: "attachments", columns: ATTACHED, keyOf: (it) => `${it.bound_by}/${it.key}/${it.device}/${it.name}`, none: ["Administrators attached nothing that your role shows you", ""] }), ask("filter.attached"), signal);
    polledTable(counts, new DataTable({ name: "rules", columns: COUNTS, keyOf: (it) => `${it.backend}/${it.rule}`, order: [1, -1], none: ["No rule decided anything yet", "Agents that hold vifs to profiles report it."] }), () => call("filter.counts", {}, signal).then(rulesOf), signal);
    return null;
  },
};
