// One domain: who it is, what it is labelled, and every channel it is an end of.

import { badge, el, empty, panel, set, failure, loading } from "../dom.js";
import { live } from "../live.js";
import { STANDINGS, keyOf } from "../model.js";
import { DataTable } from "../table.js";
import { value } from "../text.js";
import { CHANNEL_COLUMNS, ENFORCED_CHOICE, VERDICT_CHOICE, label, link, liveTable } from "./common.js";

export default {
  title: ({ parts }) => `Domain ${Number(parts[0]) || 0}`,
  under: "domains",
  open(root, { parts }) {
    const domid = Number(parts[0]);
    const facts = el("div", { class: "body" });
    const place = el("div");
    root.append(panel("Identity", { flush: true, tools: link(`between?a=${domid}`, "Ask about this and another") }, facts),
      panel("Channels", { flush: true, note: "of which it is either end" }, place));
    const table = new DataTable({
      name: "channels", columns: CHANNEL_COLUMNS, keyOf, none: ["It has no channels", ""], choices: [VERDICT_CHOICE, ENFORCED_CHOICE],
    });
    const update = liveTable(place, table, "channel.list", () =>
      live.channels && [...live.channels.values()].filter((it) => it.frontend === domid || it.backend === domid));
    return () => {
      drawFacts(facts, domid);
      update();
    };
  },
};

function drawFacts(place, domid) {
  if (!live.domains) {
    set(place, live.errors["domain.list"] ? failure(live.errors["domain.list"]) : loading());
    return;
  }
  const it = live.domain(domid);
  if (!it) {
    set(place, empty("No such domain runs", "It is gone, or your role does not show it to you."));
    return;
  }
  const { kind, word } = STANDINGS[it.status];
  const fact = (name, ...shown) => [el("dt", {}, name), el("dd", {}, shown)];
  set(place, el("dl", { class: "facts" },
    fact("Name", value(it.name, 5000)), fact("Domid", it.domid), fact("uuid", it.uuid ? el("code", {}, value(it.uuid)) : value(null)),
    fact("Label", label(it.label)), fact("Standing", badge(kind, word), it.reason && [" ", value(it.reason, 600)]),
    fact("Label stored for", it.bound_by ? ["its ", value(it.bound_by)] : value(null)), fact("Label set by", value(it.set_by)),
    fact("Policy then", value(it.policy)), fact("ssidref", value(it.ssidref)), fact("Running", it.running ? "yes" : "no, it is dying")));
}
