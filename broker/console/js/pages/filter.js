// One filter profile: its rules as they are written, the vifs that have it, and what each decided.

import { el, later, panel } from "../dom.js";
import { call } from "../rpc.js";
import { DataTable } from "../table.js";
import { plain, value } from "../text.js";
import { listing, polledTable } from "./common.js";
import { COUNTS, VIFS, few, profileOf, rulesOf, vifsAndLeases } from "./filters.js";

export default {
  title: ({ parts }) => `Filter profile ${plain(parts[0])}`,
  under: "filters",
  open(root, { parts, query, signal }) {
    const name = parts[0] ?? "";
    const [facts, text, vifs, counts] = [el("div"), el("div"), el("div"), el("div")];
    root.append(
      el("div", { class: "columns" }, panel("Profile", { flush: true }, facts), panel("What its rules decided", { flush: true, note: "as agents report it" }, counts)),
      panel("Rules", { flush: true, note: "byte for byte; rule 1 is the first" }, text),
      panel("Vifs that have it", { flush: true, note: "itself, not by another profile" }, vifs));
    const dumped = call("filter.dump", { profile: name }, signal);
    later(text, dumped, (it) => listing(it.text, "the profile", Number(query.get("line"))));
    later(facts, Promise.all([dumped, call("filter.list", {}, signal)]), ([it, list]) => el("div", { class: "body" }, draw(it, list.find((one) => one.name === name))));
    polledTable(vifs, new DataTable({ name: "vifs", columns: VIFS, keyOf: (it) => `${it.frontend}/${it.device}/${it.backend}`, none: ["No vif has it that your role shows you", ""] }), () => vifsAndLeases(signal).then((list) => list.filter((it) => it.profiles.includes(name))), signal);
    polledTable(counts, new DataTable({ name: "rules", columns: COUNTS, keyOf: (it) => `${it.backend}/${it.rule}`, order: [1, -1], none: ["None of its rules decided anything yet", ""] }), () => call("filter.counts", {}, signal).then((reports) => rulesOf(reports).filter((it) => profileOf(it.rule) === name)), signal);
    return null;
  },
};

function draw(it, listed) {
  const fact = (name, ...shown) => [el("dt", {}, name), el("dd", {}, shown)];
  return el("dl", { class: "facts" },
    fact("Name", value(it.name)), listed && fact("For", value(listed.description, 600)),
    fact("From", it.shipped ? "the package" : "stored here by an administrator"),
    fact("Digest", el("code", {}, value(it.digest))),
    listed && fact("Variables", few(listed.variables, (one) => value(one, 60), 20)),
    listed && fact("Used by", few(listed.users, (one) => value(one, 200), 20)));
}
