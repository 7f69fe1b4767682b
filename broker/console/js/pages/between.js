// Two domains: the channels between them, and what the policy says to each kind, and why.

import { badge, el, empty, failure, later, panel, set, shape } from "../dom.js";
import { live } from "../live.js";
import { VERDICTS, enforcement, findDomains, keyOf } from "../model.js";
import { call } from "../rpc.js";
import { DataTable } from "../table.js";
import { count, plain, value } from "../text.js";
import { CHANNEL_COLUMNS, domainLink, label, ruleLink } from "./common.js";

const MOST_OPTIONS = 1000;
const ALWAYS = ["vif", "vbd"];

export default {
  title: "Between two domains",
  open(root, { query, signal }) {
    const options = el("datalist", { id: "domains" });
    const field = (name) => el("input", { class: "field", list: "domains", autocomplete: "off", spellcheck: "false", required: true, name, placeholder: "name, domid or uuid" });
    const one = field("a");
    const other = field("b");
    const said = el("p", { class: "small", role: "status" });
    const form = el("form", { class: "form", onsubmit: (event) => { event.preventDefault(); ask(); } },
      el("label", {}, "One domain", one), el("label", {}, "The other", other),
      el("button", { class: "button first", type: "submit" }, "Show"));
    const answer = el("div");
    answer.style.display = "contents";
    root.append(panel("Which two", {}, form, said, options), answer);
    let update = null;
    let listed = 0;
    let waiting = query.has("a") && query.has("b");
    if (query.has("a")) one.value = query.get("a");
    if (query.has("b")) other.value = query.get("b");

    function ask() {
      const pair = [one, other].map((input) => {
        const found = live.domains ? findDomains(live.domains, input.value) : [];
        return found.length === 1 ? found[0] : null;
      });
      set(said);
      if (!live.domains) set(said, live.errors["domain.list"]?.message ?? "The domains are not known yet.");
      else if (pair.includes(null)) set(said, value(pair[0] ? other.value : one.value), " is not one domain that runs and that your role shows you: choose from the list.");
      else {
        [one.value, other.value] = pair.map(option);
        history.replaceState(null, "", `#/between?a=${pair[0].domid}&b=${pair[1].domid}`);
        update = show(answer, ...pair, signal);
        update();
      }
    }
    return () => {
      if (live.domains && listed !== live.domains.size) {
        listed = live.domains.size;
        set(options, [...live.domains.values()].slice(0, MOST_OPTIONS).map((it) =>
          el("option", { value: option(it) }, plain(it.label ?? "no label"))));
      }
      if (waiting && live.domains) {
        waiting = false;
        ask();
      } else {
        update?.();
      }
    };
  },
};

const option = (it) => (it.name ? `${plain(it.name)} (${it.domid})` : String(it.domid));

function show(place, one, other, signal) {
  const head = el("div");
  const rows = el("div", { class: "whole" });
  const says = el("div");
  const frames = el("span");
  set(place, head, panel("Channels between them", { flush: true, note: "either one the frontend" }, rows),
    panel("What the policy says", { flush: true, note: "asked of the evaluator that decides, whether or not there is a channel" }, says));
  const table = new DataTable({ name: "channels", columns: CHANNEL_COLUMNS, keyOf, none: ["No channel is between them", "Below is whether one may be."] });
  set(rows, table.element);
  const ends = [one.domid, other.domid];
  const between = () => [...(live.channels?.values() ?? [])].filter((it) =>
    it.frontend !== it.backend && ends.includes(it.frontend) && ends.includes(it.backend));
  const answers = Promise.all(questions(one, other, between()).map((asked) => decide(asked, signal)));
  later(says, answers, verdicts);
  answers.then((list) => set(frames, aboutFrames(list)), () => {});
  return () => {
    const found = between();
    table.show(found);
    const open = found.filter((it) => enforcement(it).word === "Open");
    const shut = found.length - open.length;
    const kind = !live.channels ? "none" : open.length ? "good" : "none";
    set(head, el("div", { class: `headline ${kind === "none" ? "wait" : kind}` }, shape(kind === "none" ? "none" : kind), el("div", {},
      el("p", { class: "say" }, live.channels ? open.length ? `${count(open.length)} open channel${open.length > 1 ? "s" : ""}` : "No open channel" : "Channels are not shown", " between ",
        value(one.name ?? one.domid, 60), " and ", value(other.name ?? other.domid, 60), shut ? `; ${count(shut)} not open` : ""),
      el("p", { class: "small" }, label(one.label), " ", label(other.label), " ", frames))));
  };
}

/** What is asked: each class both ways, over the resources that are in use between them; and frames. */
function questions(one, other, channels) {
  const kinds = [...new Set([...ALWAYS, ...channels.map((it) => it.class)])];
  const found = [];
  for (const kind of kinds) {
    for (const [frontend, backend] of [[one, other], [other, one]]) {
      const own = channels.filter((it) => it.class === kind && it.frontend === frontend.domid);
      const resources = [...new Set(own.map((it) => it.resource))];
      for (const resource of resources.length ? resources : [null]) found.push({ kind, frontend, backend, resource });
    }
  }
  return [{ kind: "frames", frontend: one, backend: other, resource: null }, ...found];
}

async function decide(asked, signal) {
  const { kind, frontend, backend, resource } = asked;
  const fields = { frontend: `domid:${frontend.domid}`, backend: `domid:${backend.domid}`, resource };
  const kindly = kind === "frames" ? { frames: true } : { class: kind };
  try {
    return { ...asked, answer: await call("decision.query", { ...fields, ...kindly }, signal) };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { ...asked, error };
  }
}

/** Whether what they send reaches the other over a bridge or a route, where no channel is between them. */
function aboutFrames(answers) {
  const { answer } = answers.find((it) => it.kind === "frames");
  if (!answer) return null;
  return answer.verdict === "grant" ? "Over a bridge, the policy lets frames pass between them." : "Over a bridge, the policy lets no frame pass between them.";
}

function verdicts(answers) {
  if (answers.every((it) => it.error)) return failure(answers[0].error);
  const columns = [
    { head: "Kind", cell: (it) => el("span", { class: "main" }, it.kind === "frames" ? "Frames, vif to vif" : value(it.kind)) },
    { head: "From, to", cell: (it) => (it.kind === "frames" ? "either way" : el("div", { class: "end" }, el("span", {}, domainLink(it.frontend.domid)), el("span", {}, "to ", domainLink(it.backend.domid)))) },
    { head: "Resource", name: true, cell: (it) => value(it.resource) },
    { head: "Policy says", tight: true, cell: (it) => (it.error ? badge("none", "Not said") : badge(VERDICTS[it.answer.verdict].kind, VERDICTS[it.answer.verdict].word)) },
    { head: "Why", cell: (it) => (it.error ? value(it.error.message, 400) : it.answer.reasons.map((reason) => el("div", {}, value(reason.text, 400), reason.where && el("span", { class: "small" }, " ", ruleLink(reason.where))))) },
  ];
  if (!answers.length) return empty("Nothing was asked", "");
  const table = new DataTable({ name: "answers", columns, keyOf: (it) => `${it.kind}/${it.frontend.domid}/${it.backend.domid}/${it.resource}`, none: ["Nothing was asked", ""] });
  table.show(answers);
  return table.element.querySelector(".scroll");
}
