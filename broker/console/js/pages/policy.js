// The policy in force, what waits to replace it with its difference, and who changed it before.

import { badge, el, empty, later, panel } from "../dom.js";
import { diffLines, withoutSame } from "../diff.js";
import { live } from "../live.js";
import { call } from "../rpc.js";
import { ago, clock, count, digest, plain, span, value } from "../text.js";
import { LONGEST_LINE, listing } from "./common.js";

const CHANGES = ["policy_loaded", "policy_proposed", "policy_dropped", "policy_refused"];

export default {
  title: "Policy",
  open(root, { signal, query }) {
    const [head, pending, history, text] = [el("div"), el("div"), el("div"), el("div")];
    root.append(el("div", { class: "columns" }, panel("In force", { flush: true }, head), panel("Changes before", { flush: true, note: "from the audit log" }, history)),
      panel("Waiting for a second person", { flush: true }, pending), panel("Text", { flush: true, note: "byte for byte" }, text));
    let held;
    let waiting;
    return () => {
      const now = live.status ? live.status.policy?.digest ?? "none" : live.errors.status && "unknown";
      if (now && now !== held) {
        held = now;
        const shown = call("policy.show", {}, signal);
        later(head, shown, (it) => el("div", { class: "body" }, facts(it)));
        later(text, shown, (it) => listing(it.text, "the policy", Number(query.get("line")))).then(() =>
          text.querySelector(".at")?.scrollIntoView({ block: "center" }));
        later(history, changes(signal), drawHistory);
      }
      const mark = JSON.stringify([held, live.status?.warnings]);
      if (held && mark !== waiting) {
        waiting = mark;
        later(pending, proposals(signal), (list) => (list.length ? list.map(drawProposal) : empty("Nothing waits", "A change that needs a second person appears here, with its difference.")));
      }
    };
  },
};

function facts(it) {
  const { changed: loaded } = it;
  return el("dl", { class: "facts" },
    el("dt", {}, "Policy"), el("dd", {}, value(it.name), " ", el("strong", { class: "num" }, value(it.version))),
    el("dt", {}, "Digest"), el("dd", {}, el("code", {}, value(it.digest))),
    loaded && [el("dt", {}, "Changed by"), el("dd", {}, el("strong", {}, value(loaded.subject)), loaded.role && [" as ", value(loaded.role)]),
      el("dt", {}, "When"), el("dd", { class: "num" }, `${clock(loaded.time)} (${ago(loaded.time)})`),
      el("dt", {}, "Approved by"), el("dd", {}, loaded.approver ? [el("strong", {}, value(loaded.approver)), loaded.approver_role && [" as ", value(loaded.approver_role)]] : "nobody; it needed no second person"),
      el("dt", {}, "Signed by"), el("dd", {}, loaded.signer ? el("code", {}, value(loaded.signer)) : "nobody"),
      el("dt", {}, "In the place of"), el("dd", {}, digest(loaded.replaces))]);
}

async function proposals(signal) {
  const list = await call("policy.pending", {}, signal);
  const shown = list.length ? await call("policy.show", {}, signal).catch(() => null) : null;
  return Promise.all(list.map(async (proposal) => ({
    proposal, before: shown?.text ?? "",
    review: await call("policy.review", { id: proposal.id }, signal).catch((error) => ({ error })),
  })));
}

function drawProposal({ proposal, review, before }) {
  const effect = (name, list, kind) => list.length > 0 && [el("dt", {}, name), el("dd", {}, badge(kind, count(list.length)), " ", list.slice(0, 6).map((it, n) => [n > 0 && ", ", value(it, 60)]), list.length > 6 && ` and ${count(list.length - 6)} more`)];
  const { change } = review;
  return el("div", { class: "body" },
    el("dl", { class: "facts" },
      el("dt", {}, "Proposed"), el("dd", {}, value(proposal.policy.name), " ", el("strong", { class: "num" }, value(proposal.policy.version)), " ", digest(proposal.policy.digest)),
      el("dt", {}, "By"), el("dd", {}, el("strong", {}, value(proposal.subject)), proposal.role && [" as ", value(proposal.role)], `, ${ago(proposal.proposed)}; it lapses in ${span(proposal.expires - Date.now() / 1000)}`),
      el("dt", {}, "Approve with"), el("dd", {}, el("code", {}, `brokerctl policy approve ${plain(proposal.id)}`)),
      proposal.governs.length > 0 && [el("dt", {}, "Governs"), el("dd", {}, proposal.governs.map((it, n) => [n > 0 && ", ", value(it)]))],
      change && [effect("Opens", change.opens, "good"), effect("Closes", change.closes, "bad"), effect("Unlabels", change.unlabels, "bad"), effect("Refuses", change.refuses, "bad"), effect("Warnings", change.warnings, "wait"),
        ![change.opens, change.closes, change.unlabels, change.refuses].some((it) => it.length) && [el("dt", {}, "Effect"), el("dd", {}, "No channel or domain changes.")]]),
    review.error ? el("p", { class: "muted" }, value(review.error.message)) : difference(before, review.text));
}

function difference(before, after) {
  const lines = withoutSame(diffLines(before, after));
  const words = { add: "added: ", del: "removed: " };
  return el("div", { class: "text diff", tabindex: "0", role: "region", "aria-label": "Difference to the policy in force" },
    el("ol", {}, lines.map(({ kind, text }) => el("li", { class: kind }, words[kind] && el("span", { class: "hidden" }, words[kind]), text ? value(text, LONGEST_LINE) : " "))));
}

async function changes(signal) {
  const pages = await Promise.all(CHANGES.map((event) => call("audit.list", { event, last: 10 }, signal)));
  return pages.flatMap((page) => page.records).sort((one, other) => other.n - one.n).slice(0, 10).map(({ line }) => JSON.parse(line));
}

const WORDS = {
  policy_loaded: ["good", "Loaded"], policy_proposed: ["wait", "Proposed"], policy_dropped: ["none", "Dropped"], policy_refused: ["bad", "Refused"],
};

function drawHistory(list) {
  if (!list.length) return empty("No change is in the log", "");
  const said = (it) => [value(it.name), it.version && [" ", value(it.version)], it.why && [" ", value(it.why)], it.problems && [": ", value(it.problems[0], 200)]];
  return el("div", { class: "body" }, el("ul", { class: "list" }, list.map((it) => el("li", {},
    el("div", { class: "grow" }, el("div", {}, said(it)), el("div", { class: "small muted" }, clock(it.t), " by ", value(it.subject || "nobody"), it.role && [" as ", value(it.role)], it.approver && [", approved by ", value(it.approver)])),
    badge(...(WORDS[it.event] ?? ["none", it.event]))))));
}
