// The audit log: its records as they are written, and a check of their chain in this browser.

import { badge, el, failure, loading, panel, set, shape } from "../dom.js";
import { BrokenChain, Chain, OtherChain, readKey } from "../chain.js";
import { call, follow } from "../rpc.js";
import { DataTable } from "../table.js";
import { clock, count, plain, value } from "../text.js";

const PAGE = 200;
const KEPT = 2000;
const BLOCK = 1000;
const SEEN = "audit-head"; // Where the browser keeps the last record it checked.

const COLUMNS = [
  { head: "Record", cell: (it) => el("span", { class: "main num" }, count(it.n)), text: (it) => String(it.n), sort: (it) => it.n, tight: true },
  { head: "Time", cell: (it) => clock(it.t), text: (it) => clock(it.t), tight: true },
  { head: "Event", cell: (it) => el("span", { class: "chip" }, plain(it.event).replaceAll("_", " ")), text: (it) => it.event, sort: (it) => it.event, tight: true },
  { head: "By", cell: (it) => [value(it.subject || null, 48), it.role && [" as ", value(it.role, 40)]], text: (it) => `${it.subject} ${it.role}`, sort: (it) => it.subject ?? "" },
  { head: "What it says", cell: (it) => el("span", { class: "why" }, value(it.words, 300)), text: (it) => it.words },
];

export default {
  title: "Audit",
  open(root, { signal, query }) {
    const checked = el("div");
    const place = el("div");
    const note = el("span", { class: "muted", role: "status" });
    const older = el("button", { class: "button", type: "button" }, "Older");
    root.append(panel("Is the log whole?", { note: "records are chained by their hashes; your browser checks them" }, verifier(checked, signal), checked),
      panel("Records", { flush: true, tools: [note, older] }, place));
    const table = new DataTable({ name: "records", columns: COLUMNS, keyOf: (it) => String(it.n), order: [0, -1], filter: query.get("filter") ?? "", none: ["No record is shown", ""] });
    table.marks = true;
    const records = new Map();
    let oldest = null;
    let drawing = 0;
    const draw = () => {
      drawing ||= setTimeout(() => {
        drawing = 0;
        for (const n of [...records.keys()].slice(0, Math.max(0, records.size - KEPT))) records.delete(n);
        if (!place.contains(table.element)) set(place, table.element);
        table.show([...records.values()]);
      }, 200);
    };
    const back = async (before) => {
      const page = await call("audit.list", { last: PAGE, ...(before ? { before } : {}) }, signal);
      for (const it of page.records) records.set(it.n, read(it));
      oldest = page.oldest;
      older.disabled = !page.more;
      draw();
      return page.last;
    };
    older.addEventListener("click", () => back(oldest).catch((error) => set(note, value(error.message))));
    set(place, loading());
    const asked = Number(query.get("before")) || null;
    back(asked).then((last) => {
      if (asked) {
        set(note, `before ${count(asked)} `, el("a", { href: "#/audit" }, "Show the newest"));
        return null;
      }
      return follow("audit.tail", { since: last }, {
        begun: () => set(note, badge("good", "Following")),
        event: (it) => { records.set(it.n, read(it)); draw(); },
        lagged: (lost) => set(note, badge("bad", `${count(lost)} records were dropped on the disk`)),
        lost: (error) => set(note, error.code === "denied" ? value(error.message) : badge("wait", "Not connected")),
      }, signal);
    }, (error) => {
      if (error.name !== "AbortError") set(place, failure(error));
    });
    return null;
  },
};

const FRAME = ["n", "event", "t", "hash", "in_force", "subject", "role"];

/** A record as a row: what it says in `name value` pairs. */
function read({ n, line }) {
  const it = JSON.parse(line);
  const words = Object.entries(it).filter(([name, said]) => !FRAME.includes(name) && said !== null && said !== "")
    .map(([name, said]) => `${name} ${typeof said === "object" ? JSON.stringify(said) : said}`).join(" · ");
  return { n, event: it.event, t: it.t, subject: it.subject, role: it.role, words };
}

function verifier(place, signal) {
  const file = el("input", { class: "field", type: "file", accept: ".pub,.pem" });
  const begin = el("button", { class: "button first", type: "button", onclick: async () => {
    begin.disabled = true;
    try {
      const key = file.files.length ? await readKey(await file.files[0].text()) : null;
      await verify(place, key, signal);
    } catch (error) {
      if (error.name !== "AbortError") set(place, say("bad", "The log could not be checked.", value(error.message)));
    } finally {
      begin.disabled = false;
    }
  } }, "Check the log");
  return el("div", { class: "form" },
    el("label", {}, "The broker's public key, broker.pub, for the signatures (optional)", file), begin);
}

const say = (kind, words, ...more) => el("div", { class: `headline ${kind}`, role: "status" }, shape(kind), el("div", {}, el("p", { class: "say" }, words), el("p", { class: "small" }, more)));

/** Walk from the oldest record kept to the newest, and say what was found. */
async function verify(place, key, signal) {
  const known = JSON.parse(localStorage.getItem(SEEN) ?? "null");
  const chain = new Chain(key, known);
  const newest = (await call("audit.list", { last: 1 }, signal)).last;
  let next = await oldestKept(newest, signal);
  try {
    while (next <= newest) {
      const end = Math.min(next + BLOCK - 1, newest);
      const page = await call("audit.list", { last: BLOCK, before: end + 1 }, signal);
      const lines = page.records.filter((it) => it.n >= next && it.n <= end);
      if (page.unread || lines.at(-1)?.n !== end) throw new BrokenChain(`Records between ${next} and ${end} are missing or do not read.`);
      for (const it of lines) await chain.take(it.line);
      next = end + 1;
      set(place, say("wait", `Checking: record ${count(end)} of ${count(newest)}`, ""));
    }
    if (known && known.n > newest) throw new OtherChain();
  } catch (error) {
    if (error instanceof OtherChain) {
      set(place, say("bad", "The log is not the one that this browser saw before.", `Record ${count(known.n)} was there, and is another now or gone. If the broker was set up anew, that is why; if not, the log was cut or written anew. `, forget(place)));
      return;
    }
    if (!(error instanceof BrokenChain)) throw error;
    set(place, say("bad", "The log is not whole.", `${error.message} ${count(chain.counted)} records before it are right. Check with brokerctl audit verify on the broker's host.`));
    return;
  }
  localStorage.setItem(SEEN, JSON.stringify(chain.last));
  const signatures = key ? `${count(chain.signed)} of ${count(chain.checkpoints)} checkpoints are signed by this key.`
    : `The signatures of ${count(chain.checkpoints)} checkpoint${chain.checkpoints === 1 ? "" : "s"} were not checked: choose broker.pub.`;
  set(place, say("good", `The log is whole: records ${count(chain.first)} to ${count(chain.last.n)} follow one another.`, signatures,
    chain.first > 1 ? ` Records before ${count(chain.first)} are kept no more.` : ""));
}

/** The number of the oldest record that there is: by halves, where older ones were let go. */
async function oldestKept(newest, signal) {
  const first = await call("audit.list", { last: 1, before: 2 }, signal);
  if (first.records.length) return 1;
  let [gone, there] = [1, newest];
  while (there - gone > 1) {
    const middle = Math.floor((gone + there) / 2);
    const page = await call("audit.list", { last: 1, before: middle + 1 }, signal);
    if (page.records.at(-1)?.n === middle) there = middle;
    else gone = middle;
  }
  return there;
}

const forget = (place) => el("button", { class: "button", type: "button", onclick: () => {
  localStorage.removeItem(SEEN);
  set(place);
} }, "Forget what was seen");
