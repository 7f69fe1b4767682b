// What the broker said last: kept up to date by its streams, and marked where it may be old.

import { call, follow } from "./rpc.js";
import { keyOf } from "./model.js";

const STATUS_EVERY = 5000;
const DOMAINS_EVERY = 10_000;
const TOLD_AT_MOST_EVERY = 200;
const KEPT_EVENTS = 500;
const STREAM_WITHIN = 500; // Milliseconds; after it channels are asked for without the stream.

class Live extends EventTarget {
  phase = "loading"; // loading, live, polled (no stream for this role), stale
  lostAt = null;
  lost = 0;
  status = null;
  caller = null;
  domains = null;
  channels = null;
  events = [];
  errors = {};
  #buffered = null;
  #told = 0;
  #arrived = 0;
  #asked = new Map();
  #asking = new AbortController();
  #streams = false;
  #signal = new AbortController().signal;

  async start() {
    await Promise.all([this.#status(), this.#domains(), this.#caller()]);
    this.#watch();
    setTimeout(() => !this.channels && !this.#buffered && this.#channels(), STREAM_WITHIN);
    setInterval(() => this.#visible() && this.#status(), STATUS_EVERY);
    setInterval(() => this.#visible() && this.#domains(), DOMAINS_EVERY);
    document.addEventListener("visibilitychange", () => this.#visible() && this.again());
  }

  /** Ask for everything again; who was asked before need not answer any more. */
  again() {
    this.#asking.abort();
    this.#asking = new AbortController();
    this.#asked.clear();
    return Promise.all([this.#status(), this.#domains(), this.#channels()]);
  }

  domain(domid) {
    return this.domains?.get(domid) ?? null;
  }

  #visible() {
    return document.visibilityState === "visible";
  }

  #changed() {
    if (this.#told) return;
    this.#told = setTimeout(() => {
      this.#told = 0;
      this.dispatchEvent(new Event("change"));
    }, TOLD_AT_MOST_EVERY);
  }

  async #ask(name, fields, take) {
    const { signal } = this.#asking;
    try {
      const result = await call(name, fields, signal);
      delete this.errors[name];
      take(result);
      if (name !== "domain.list" && this.phase === "stale") this.#found();
    } catch (error) {
      if (signal.aborted) return;
      this.errors[name] = error;
      if (error.code === "unreachable") this.#is("stale");
    }
    this.#changed();
  }

  /** The broker answers again: as good as before, where the stream goes on or there is none. */
  #found() {
    // The stream tells what changes: what it adds to has to have come, too.
    if (this.errors["channel.list"]?.code === "unreachable") this.#channels();
    else if (this.#streams) this.#is("live");
    else if (this.errors["channel.watch"]?.code === "denied") this.#is("polled");
  }

  /** Ask, unless the last answer is still to come: a slow broker is not asked ever more. */
  #poll(name, take) {
    if (!this.#asked.has(name)) {
      const asked = this.#ask(name, {}, take).finally(() => {
        if (this.#asked.get(name) === asked) this.#asked.delete(name);
      });
      this.#asked.set(name, asked);
    }
    return this.#asked.get(name);
  }

  #status() {
    return this.#poll("status", (it) => { this.status = it; });
  }

  async #caller() {
    try {
      this.caller = await (await fetch("/console/caller.json")).json();
    } catch {
      this.caller = null;
    }
  }

  #domains() {
    return this.#poll("domain.list", (list) => {
      this.domains = new Map(list.map((it) => [it.domid, it]));
    });
  }

  async #channels() {
    const meanwhile = [];
    this.#buffered = meanwhile;
    await this.#ask("channel.list", {}, (list) => {
      if (this.#buffered === meanwhile) this.channels = new Map(list.map((it) => [keyOf(it), it]));
    });
    if (this.#buffered !== meanwhile) return; // Asked again since: that answer counts.
    this.#buffered = null;
    for (const it of meanwhile) this.#take(it);
  }

  #watch() {
    follow("channel.watch", {}, {
      begun: () => {
        delete this.errors["channel.watch"];
        this.#streams = true;
        this.#is("live");
        this.again();
      },
      event: (it) => this.#event(it),
      lagged: (lost) => {
        this.lost += lost;
        this.#channels();
      },
      lost: (error) => {
        this.errors["channel.watch"] = error;
        this.#streams = false;
        if (error.code !== "denied") return this.#is("stale");
        this.#is("polled");
        setInterval(() => this.#visible() && this.#channels(), DOMAINS_EVERY);
        return this.#channels();
      },
    }, this.#signal);
  }

  #is(phase) {
    if (phase === "stale" && this.phase !== "stale") this.lostAt = Date.now() / 1000;
    this.phase = phase;
    this.#changed();
  }

  #event(it) {
    this.#arrived += 1;
    this.events.push({ ...it, number: this.#arrived });
    if (this.events.length > KEPT_EVENTS) this.events.shift();
    if (this.#buffered) this.#buffered.push(it);
    this.#take(it);
    this.#changed();
  }

  #take(it) {
    if (!this.channels) return;
    const key = keyOf(it.channel);
    if (it.event === "gone") this.channels.delete(key);
    else this.channels.set(key, it.channel);
  }
}

export const live = new Live();
