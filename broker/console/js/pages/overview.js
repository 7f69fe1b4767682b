// How everything is, in one look: healthy, enforced, and who changed the rules last.

import { badge, el, empty, later, panel, set, shape, failure, loading } from "../dom.js";
import { live } from "../live.js";
import { summary } from "../model.js";
import { call } from "../rpc.js";
import { ago, clock, count, digest, plain, span, value } from "../text.js";
import { channelLink, domainLink, enforced, label, link, verdict, why } from "./common.js";

const SHOWN = 8;

export default {
  title: "Overview",
  open(root, { signal }) {
    const head = el("div");
    const tiles = el("div", { class: "tiles" });
    const problems = el("div");
    const policy = el("div", { class: "body" });
    const open = el("ul", { class: "list" });
    const denials = el("ul", { class: "list" });
    root.append(head, tiles, problems, el("div", { class: "columns" },
      el("div", { class: "column" },
        panel("Policy in force", { flush: true, tools: link("policy", "Show") }, policy),
        panel("Not enforced yet", { tools: link("channels?Enforced=no", "All") }, open)),
      panel("Denied last", { tools: link("channels?Decision=deny", "All") }, denials)));
    let held = null;
    return () => {
      const { status } = live;
      drawHead(head, tiles, status);
      drawProblems(problems, status);
      drawLists(open, denials);
      const wanted = status?.policy?.digest ?? null;
      if (status && wanted !== held) {
        held = wanted;
        if (wanted) later(policy, call("policy.show", {}, signal), drawPolicy);
        else set(policy, empty("No policy is in force", "Everything is denied: brokerctl policy load"));
      } else if (!status && held === null) {
        set(policy, live.errors.status ? failure(live.errors.status) : loading());
      }
    };
  },
};

function drawHead(head, tiles, status) {
  const found = live.channels && summary(live.channels.values());
  const error = live.errors.status;
  if (!status) {
    set(head, error ? panel("Status", { flush: true }, failure(error)) : loading());
  } else {
    set(head, headline(status, found));
  }
  set(tiles, status && tile("domains", "Domains", status.domains.labelled + status.domains.unlabelled + status.domains.refused, [
    ["good", "labelled", status.domains.labelled], ["wait", "unlabelled", status.domains.unlabelled], ["bad", "refused", status.domains.refused]]),
  status ? tile("channels", "Channels decided", status.channels.grant + status.channels.deny + status.channels.pending, [
    ["good", "granted", status.channels.grant], ["bad", "denied", status.channels.deny], ["wait", "pending", status.channels.pending]])
    : found && tile("channels", "Channels you see", found.all, []),
  found && tile("channels?Enforced=no", "Enforced", `${count(found.enforced)} of ${count(found.all)}`, [
    ["good", "confirmed", found.enforced], ["wait", "waiting", found.waiting.length], ["bad", "failed", found.failed.length]]),
  status && tile("audit", "Audit records", status.journal_seq, [], `running ${span(status.uptime)}, version ${plain(status.version)}`));
}

function headline(status, found) {
  const late = found ? found.waiting.length + found.failed.length : 0;
  const red = status.health === "red" || !status.enforcing || found?.failed.length;
  const kind = red ? "bad" : late || status.health === "amber" ? "wait" : "good";
  const first = !status.enforcing ? `Not enforcing: the broker is ${status.state}.`
    : status.problems.length ? `${status.problems.length === 1 ? "One problem needs" : `${count(status.problems.length)} problems need`} you.`
      : status.warnings.length ? `The broker works; ${count(status.warnings.length)} ${status.warnings.length === 1 ? "thing wants" : "things want"} a look.` : "The broker is healthy.";
  const then = !found ? "Which channels are enforced is not shown to your role."
    : late ? `${count(late)} of ${count(found.all)} decisions are not confirmed by their agents.`
      : `Everything decided is enforced: all ${count(found.all)} channels.`;
  return el("div", { class: `headline ${kind}` }, shape(kind),
    el("div", {}, el("p", { class: "say" }, `${first} ${then}`),
      el("p", { class: "small" }, `Store ${plain(status.store)} ${status.store_connected ? "connected" : "not connected"}`,
        live.phase === "stale" ? ` · as of ${clock(live.lostAt)}` : "")));
}

function tile(path, words, figure, parts, note) {
  const shown = parts.filter(([, , number]) => number);
  const all = shown.reduce((sum, [, , number]) => sum + number, 0);
  const bar = el("div", { class: "bar", "aria-hidden": "true" }, all ? shown.map(([kind, , number]) => {
    const part = el("span", { class: kind });
    part.style.flexGrow = String(number);
    return part;
  }) : el("span", { class: "none grow" }));
  return el("a", { class: "tile", href: `#/${path}` }, el("div", { class: "label" }, words),
    el("div", { class: "figure" }, typeof figure === "number" ? count(figure) : figure), parts.length > 0 && bar,
    el("div", { class: "parts" }, parts.filter(([, , number]) => number).map(([, name, number]) => el("span", { class: "num" }, `${count(number)} ${name}`)), note));
}

function drawProblems(place, status) {
  const lines = status?.findings.map((it) => [it.level === "red" ? "bad" : "wait", it.text, it.action]) ?? [];
  set(place, lines.length > 0 && panel("What needs you", { note: `${count(lines.length)}` },
    el("ul", { class: "list" }, lines.map(([kind, words, action]) =>
      el("li", {}, el("span", { class: kind }, shape(kind)), el("div", { class: "grow" }, el("div", {}, value(words, 600)), el("div", { class: "muted" }, value(action, 400))))))));
}

function drawPolicy(it) {
  const { changed: change } = it;
  return [el("dl", { class: "facts" },
    el("dt", {}, "Policy"), el("dd", {}, value(it.name), " ", el("strong", { class: "num" }, value(it.version))),
    el("dt", {}, "Digest"), el("dd", {}, digest(it.digest)),
    change && [el("dt", {}, "Last changed by"), el("dd", {}, el("strong", {}, value(change.subject)), change.role && [" as ", value(change.role)]),
      el("dt", {}, "When"), el("dd", { class: "num" }, `${clock(change.time)} (${ago(change.time)})`),
      change.approver && [el("dt", {}, "Approved by"), el("dd", {}, el("strong", {}, value(change.approver)), change.approver_role && [" as ", value(change.approver_role)])]])];
}

function drawLists(open, denials) {
  if (!live.channels) {
    const error = live.errors["channel.list"];
    for (const list of [open, denials]) set(list, el("li", {}, error ? failure(error) : loading()));
    return;
  }
  const found = summary(live.channels.values());
  const late = [...found.failed, ...found.waiting];
  set(open, late.slice(0, SHOWN).map((it) => line(it, enforced)),
    !late.length && el("li", {}, el("span", { class: "good" }, shape("good")), "All is confirmed by the agents."));
  const denied = [...live.channels.values()].filter((it) => it.verdict === "deny").sort((a, b) => (b.seq ?? 0) - (a.seq ?? 0));
  set(denials, denied.slice(0, SHOWN).map((it) => line(it, verdict)),
    !denied.length && el("li", {}, el("span", { class: "good" }, shape("good")), "Nothing is denied."));
}

const line = (it, mark) => el("li", {}, el("div", { class: "grow" },
  el("div", {}, channelLink(it), " of ", domainLink(it.frontend, it.frontend_name), " ", label(it.frontend_label)), why(it.reason)), mark(it));
