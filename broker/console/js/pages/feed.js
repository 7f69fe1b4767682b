// Decisions and reports as they fall, the newest first.

import { badge, el, panel, set } from "../dom.js";
import { live } from "../live.js";
import { VERDICTS, keyOf } from "../model.js";
import { DataTable } from "../table.js";
import { clock, count, plain, value } from "../text.js";
import { channelLink, end, enforced, why } from "./common.js";

const happened = ({ event, previous, channel }) => {
  if (event === "gone") return badge("none", "Gone");
  if (event === "report") return enforced(channel);
  const { kind, word } = VERDICTS[channel.verdict];
  const before = previous && previous !== channel.verdict ? `, was ${VERDICTS[previous].word.toLowerCase()}` : "";
  return el("span", { title: plain(`${word}${before}`) }, badge(kind, word + before));
};

const COLUMNS = [
  { head: "Channel", cell: (it) => el("span", { class: "main" }, channelLink(it.channel)), text: (it) => keyOf(it.channel), tight: true },
  { head: "Time", cell: (it) => clock(it.time), text: (it) => clock(it.time), tight: true },
  { head: "What", cell: (it) => (it.event === "report" ? "agent's report" : it.event), text: (it) => it.event, tight: true },
  { head: "Outcome", cell: happened, text: (it) => it.channel.verdict, tight: true },
  { head: "Frontend", cell: (it) => end(it.channel.frontend, it.channel.frontend_name, it.channel.frontend_label), text: (it) => `${it.channel.frontend_name} ${it.channel.frontend_label}` },
  { head: "Backend", cell: (it) => end(it.channel.backend, null, it.channel.backend_label), text: (it) => `${it.channel.backend} ${it.channel.backend_label}` },
  { head: "Why", cell: (it) => why(it.channel.reason), text: (it) => it.channel.reason },
];

export default {
  title: "Live decisions",
  open(root, { query }) {
    const place = el("div");
    let paused = null;
    const pause = el("button", { class: "button", type: "button", "aria-pressed": "false", onclick: () => {
      paused = paused ? null : live.events.at(-1)?.number ?? 0;
      update();
    } }, "Pause");
    const note = el("span", { class: "muted small" });
    root.append(panel("Since this page was opened", { flush: true, tools: [note, pause] }, place));
    const table = new DataTable({
      name: "events", columns: COLUMNS, keyOf: (it) => String(it.number), filter: query.get("filter") ?? "",
      none: ["Nothing has been decided since", "It appears here when a domain, a label or the policy changes."],
      choices: [
        { name: "Kind", options: [["decision", "Decisions", (it) => it.event === "decision"], ["report", "Reports", (it) => it.event === "report"], ["gone", "Gone", (it) => it.event === "gone"]] },
        { name: "Decision", options: Object.entries(VERDICTS).map(([name, { word }]) => [name, word, (it) => it.channel.verdict === name]) }],
    });
    table.marks = true;
    set(place, table.element);
    function update() {
      const waiting = paused === null ? 0 : live.events.filter((it) => it.number > paused).length;
      pause.textContent = paused === null ? "Pause" : `Go on (${count(waiting)} new)`;
      pause.setAttribute("aria-pressed", String(paused !== null));
      const refused = live.errors["channel.watch"];
      set(note, refused?.code === "denied" ? value(refused.message) : live.lost ? `${count(live.lost)} events were dropped: this page reads too slowly` : "");
      if (paused === null) table.show([...live.events].reverse());
    }
    return update;
  },
};
