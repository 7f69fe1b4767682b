// One channel explained: why it is decided so, what would grant it, and what its agent did.

import { el, empty, later, panel, set, shape } from "../dom.js";
import { live } from "../live.js";
import { VERDICTS, enforcement } from "../model.js";
import { call } from "../rpc.js";
import { digest, plain, value } from "../text.js";
import { domainLink, enforced, label, link, ruleLink } from "./common.js";
import { attachedBy, few, given } from "./filters.js";

export default {
  title: ({ parts }) => `Channel ${plain(parts.slice(0, 3).join(" "))}`,
  under: "channels",
  open(root, { parts, signal }) {
    const [kind, frontend, device, backend] = parts;
    const place = el("div", { class: "content-in" });
    root.append(place);
    place.style.display = "contents";
    const asked = { class: kind ?? "", frontend: `domid:${frontend}`, device: device ?? "", ...(Number(backend) >= 0 && backend ? { backend: Number(backend) } : {}) };
    const filters = el("div");
    root.append(filters);
    if (kind === "vif") drawFilters(filters, asked, signal);
    let held;
    return () => {
      const it = live.channels?.get(parts.join("/"));
      const seen = JSON.stringify([it, live.status?.policy?.digest]);
      if (held === seen) return;
      const first = held === undefined;
      held = seen;
      const answer = call("channel.explain", asked, signal);
      if (first) later(place, answer, draw);
      else answer.then((found) => held === seen && set(place, draw(found)), () => {});
      // What is shown is of before: it is asked again with the next news.
      answer.catch((error) => { if (error.code === "unreachable" && held === seen) held = null; });
    };
  },
};

function draw(it) {
  const { channel } = it;
  const { kind, word } = VERDICTS[channel.verdict];
  const means = enforcement(channel);
  return [
    el("div", { class: `headline ${kind}` }, shape(kind), el("div", {},
      el("p", { class: "say" }, `${word}: `, value(channel.reason, 2000)),
      el("p", { class: "small" }, `${means.word}: `, value(means.why, 600), "."))),
    el("div", { class: "columns" },
      panel("Why", { note: "as the evaluator that enforces says it" }, reasons(it)),
      channel.verdict === "deny" && panel("What would grant it", { note: "smallest changes to the policy" }, changes(it))),
    el("div", { class: "columns" }, panel("Channel", {}, facts(channel)), panel("Record", {}, record(it)))];
}

/** What the vif's frames are held to besides: a panel where there is something. */
async function drawFilters(place, { frontend, device }, signal) {
  const it = await call("filter.show", { domain: frontend, device }, signal).catch(() => null);
  if (!it?.profiles.length) return;
  const fact = (name, ...shown) => [el("dt", {}, name), el("dd", {}, shown)];
  set(place, panel("Filters", { note: "all of its profiles must accept a frame", tools: link("filters", "All") }, el("dl", { class: "facts" },
    fact("Profiles", attachedBy(it)), fact("Variables", given(it.variables)),
    it.learned.length > 0 && fact("Learned by DHCP", few(it.learned, (one) => value(one))),
    it.problem && fact("Closed, because", value(it.problem, 600)))));
}

function reasons(it) {
  if (!it.reasons.length) return empty("No rule was asked", "");
  return el("ul", { class: "list" }, it.reasons.map((reason) => el("li", {},
    el("div", { class: "grow" }, el("div", {}, value(reason.text, 2000)),
      el("div", { class: "small muted" }, "rule ", el("code", {}, value(reason.rule)), reason.where && [" at ", ruleLink(reason.where)])))));
}

function changes(it) {
  if (!it.changes.length) return empty("No change to the policy alone", "What the policy says is not what denies it.");
  return [it.changes.length > 1 && el("p", { class: "muted" }, "Any one of these:"),
    el("ul", { class: "list" }, it.changes.map((way) => el("li", {}, el("div", { class: "grow" },
      way.map((words) => el("div", {}, value(words, 2000)))))))];
}

function facts(it) {
  const fact = (name, ...shown) => [el("dt", {}, name), el("dd", {}, shown)];
  return el("dl", { class: "facts" },
    fact("Class", value(it.class)), fact("Device", value(it.device)),
    fact("Frontend", domainLink(it.frontend, it.frontend_name), " ", label(it.frontend_label)),
    fact("Backend", domainLink(it.backend), " ", label(it.backend_label)),
    fact("Resource", value(it.resource)), fact("Enforced", enforced(it)),
    fact("Agent says", it.enforced ? [value(it.enforced.state), it.enforced.seq !== null && ` on record ${plain(it.enforced.seq)}`, it.enforced.reason && [": ", value(it.enforced.reason, 600)]] : "nothing yet"),
    fact("Device's life", it.nonce_known ? "reported by the agent" : "not reported by the agent"));
}

function record(it) {
  const inputs = Object.entries(it.inputs);
  return [el("dl", { class: "facts" },
    el("dt", {}, "Number"), el("dd", { class: "num" }, value(it.channel.seq)),
    el("dt", {}, "Policy"), el("dd", {}, it.policy ? [value(it.policy.name), " ", value(it.policy.version), " ", digest(it.policy.digest)] : value(null)),
    inputs.map(([name, words]) => [el("dt", {}, value(name)), el("dd", {}, value(words, 600))])),
  el("h3", {}, "As published"), it.published ? el("div", { class: "record", tabindex: "0", role: "region", "aria-label": "Record as published" }, value(it.published, 4000)) : el("p", { class: "muted" }, "Nothing is published.")];
}
