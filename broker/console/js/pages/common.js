// Columns and links that several pages share.

import { badge, el, empty, failure, later, loading, set } from "../dom.js";
import { live } from "../live.js";
import { VERDICTS, enforcement, keyOf } from "../model.js";
import { plain, value } from "../text.js";

export const link = (path, ...children) => el("a", { href: `#/${path}` }, children);

export const channelLink = (it, words) => link(`channel/${keyOf(it)}`, words ?? plain(`${it.class} ${it.device}`));

/** A domain by what it is called, leading to its page. */
export function domainLink(domid, name = null) {
  if (domid === null || domid < 0) return value(null);
  const called = name ?? live.domain(domid)?.name ?? null;
  return link(`domain/${domid}`, called ? [value(called, 60), el("span", { class: "muted num" }, ` ${domid}`)] : `domain ${domid}`);
}

export const domainText = (domid, name = null) => `${domid} ${name ?? live.domain(domid)?.name ?? ""}`;

export const label = (name) => (name ? el("span", { class: "chip" }, value(name, 48)) : el("span", { class: "muted" }, "no label"));

export const verdict = (it) => badge(VERDICTS[it.verdict].kind, VERDICTS[it.verdict].word);

export function enforced(it) {
  const { kind, word, why } = enforcement(it);
  return el("span", { title: plain(why) }, badge(kind, word));
}

export const why = (text) => el("span", { class: "why", title: plain(text) }, value(text, 400));

/** One end of a channel: its domain, and the label of that. */
export const end = (domid, name, labelled) => el("div", { class: "end" }, el("span", {}, domainLink(domid, name)), label(labelled));

/** The columns of a table of channels. */
export const CHANNEL_COLUMNS = [
  { head: "Channel", cell: (it) => el("span", { class: "main" }, channelLink(it)), text: (it) => `${it.class} ${it.device}`, sort: (it) => `${it.class}${it.device.padStart(12, "0")}`, tight: true },
  { head: "Frontend", cell: (it) => end(it.frontend, it.frontend_name, it.frontend_label), text: (it) => `${it.frontend} ${it.frontend_name} ${it.frontend_label}`, sort: (it) => it.frontend },
  { head: "Backend", cell: (it) => end(it.backend, null, it.backend_label), text: (it) => `${domainText(it.backend)} ${it.backend_label}`, sort: (it) => it.backend },
  { head: "Resource", name: true, cell: (it) => value(it.resource, 48), text: (it) => it.resource, sort: (it) => it.resource ?? "" },
  { head: "Decision", cell: verdict, text: (it) => it.verdict, sort: (it) => it.verdict, tight: true },
  { head: "Enforced", cell: enforced, text: (it) => enforcement(it).word, sort: (it) => enforcement(it).word, tight: true },
  { head: "Why", cell: (it) => why(it.reason), text: (it) => it.reason },
];

export const VERDICT_CHOICE = {
  name: "Decision",
  options: Object.entries(VERDICTS).map(([name, { word }]) => [name, word, (it) => it.verdict === name]),
};

export const ENFORCED_CHOICE = {
  name: "Enforced",
  options: [
    ["yes", "Yes", (it) => enforcement(it).state === "enforced"],
    ["no", "Not yet, or failed", (it) => enforcement(it).state !== "enforced"],
  ],
};

/** What a list shows while it has no data: loading, or why there is none; null where there is. */
export function standIn(name, data) {
  const error = live.errors[name];
  if (data) return null;
  return error ? failure(error) : loading();
}

/** Where a rule stands in the policy, leading there. */
export function ruleLink(where) {
  const [, file, line, column] = /([^/]*):(\d+):(\d+)$/.exec(where) ?? [];
  return line ? el("a", { href: `#/policy?line=${line}`, title: plain(where) }, value(`${file}:${line}:${column}`, 60)) : value(where);
}

/** Keep a place showing a table of live data, or what stands in for it. */
export function liveTable(place, table, name, rows) {
  return () => {
    const data = rows();
    const instead = standIn(name, data);
    if (instead) {
      if (place.dataset.instead !== instead.className) set(place, instead);
      place.dataset.instead = instead.className;
      return;
    }
    if (!place.contains(table.element)) set(place, table.element);
    delete place.dataset.instead;
    table.show(data);
  };
}

/** Keep a place showing a table of what is asked for, again every so often while there is a broker. */
export function polledTable(place, table, ask, signal, every = 10_000) {
  later(place, ask(), (rows) => { table.show(rows); return table.element; });
  const again = () => ask().then((rows) => {
    table.show(rows);
    if (!place.contains(table.element)) set(place, table.element);
  }, () => {});
  const timer = setInterval(() => live.phase !== "stale" && again(), every);
  signal.addEventListener("abort", () => clearInterval(timer));
}

export const LONGEST_LINE = 2000;

/** A text as it is, with its lines numbered, one of them marked. */
export const listing = (text, name, at = 0) =>
  el("div", { class: "text", tabindex: "0", role: "region", "aria-label": `Text of ${name}` },
    el("ol", {}, text.replace(/\n$/, "").split("\n").map((line, number) =>
      el("li", { class: number + 1 === at ? "at" : null }, line ? value(line, LONGEST_LINE) : " "))));

export const nothingWrong = (words) => empty(words, "");
