// The frame around every page: navigation, head, and what is said of the connection.

import { badge, el, set, shape } from "./dom.js";
import { live } from "./live.js";
import { clock, count, value } from "./text.js";

const MENU = [
  ["Now", [["", "Overview"], ["live", "Live decisions"]]],
  ["Who", [["between", "Between two domains"], ["reach", "Who may talk to whom"], ["domains", "Domains and labels"], ["channels", "Channels"]]],
  ["Enforcement", [["violations", "Violations"], ["agents", "Agents"], ["network", "Network"], ["filters", "Filters"]]],
  ["Rules", [["policy", "Policy"], ["audit", "Audit"]]],
];

export class Shell {
  constructor() {
    this.title = el("h1", { tabindex: "-1" });
    this.content = el("div", { class: "content" });
    this.health = el("span", {});
    this.stream = el("span", {});
    this.banner = el("div", { class: "banner", role: "status", hidden: true });
    this.links = new Map();
    this.who = el("div", { class: "who" });
    this.side = el("aside", { class: "side", id: "side", "aria-label": "Console" },
      el("a", { class: "brand", href: "#/" }, el("img", { src: new URL("../icon.svg", import.meta.url).href, alt: "" }), "Policy broker"),
      el("nav", { class: "nav", "aria-label": "Pages" }, MENU.map(([head, pages]) => [
        el("h2", {}, head),
        el("ul", {}, pages.map(([path, words]) => el("li", {}, this.#link(path, words)))),
      ])), this.who);
    this.menu = el("button", {
      class: "button icon menu", type: "button", "aria-label": "Menu", "aria-controls": "side", "aria-expanded": "false",
      onclick: () => this.#open(!this.side.classList.contains("open")),
    }, "☰");
    this.theme = el("button", { class: "button icon quiet", type: "button", onclick: () => this.#turn() });
    this.main = el("div", { class: "main" },
      el("header", { class: "head" }, this.menu, this.title,
        el("div", { class: "tools" }, this.stream, this.health, this.theme)),
      this.banner, el("main", { id: "content" }, this.content));
  }

  start() {
    this.#themed(localStorage.getItem("theme") ?? "");
    document.body.append(
      el("a", { class: "skip", href: "#content", onclick: (event) => { event.preventDefault(); this.title.focus(); } }, "Skip to the page"),
      el("div", { class: "frame" }, this.side, this.main));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.side.classList.contains("open")) { this.#open(false); this.menu.focus(); }
      if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
        const field = this.content.querySelector("input[type=search], input");
        if (field) { event.preventDefault(); field.focus(); }
      }
    });
    document.addEventListener("click", (event) => {
      if (this.side.classList.contains("open") && !this.side.contains(event.target) && !this.menu.contains(event.target)) this.#open(false);
    });
    live.addEventListener("change", () => this.#state());
    this.#state();
  }

  /** A page begins. */
  turnTo(page, path, title) {
    this.title.textContent = title;
    document.title = `${title} · Policy broker`;
    for (const [own, link] of this.links) {
      if (own === (page.under ?? path)) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.#open(false);
    set(this.content);
    window.scrollTo(0, 0);
  }

  #link(path, words) {
    const link = el("a", { href: `#/${path}` }, words);
    this.links.set(path, link);
    return link;
  }

  #open(open) {
    this.side.classList.toggle("open", open);
    this.menu.setAttribute("aria-expanded", String(open));
  }

  #turn() {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
      || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    this.#themed(dark ? "light" : "dark");
  }

  #themed(theme) {
    if (theme) {
      document.documentElement.dataset.theme = theme;
      localStorage.setItem("theme", theme);
    }
    this.theme.textContent = "◐";
    this.theme.setAttribute("aria-label", "Light or dark");
    this.theme.title = "Light or dark";
  }

  #state() {
    const { status, phase, caller } = live;
    const waits = phase === "stale";
    set(this.stream, phase === "live" ? badge("good", "Live") : phase === "polled" ? badge("none", "Every 10 s")
      : waits ? badge("wait", "Not connected") : badge("none", "Connecting"));
    set(this.health, status && el("span", { class: "wide-only" }, health(status, waits)));
    this.banner.hidden = !waits;
    if (waits && !this.banner.firstChild) {
      set(this.banner, shape("wait"), el("span", {}, `Connection lost at ${clock(live.lostAt)}. What is shown is from before; connecting again.`),
        el("button", { class: "button", type: "button", onclick: () => live.again() }, "Try now"));
    } else if (!waits) {
      set(this.banner);
    }
    set(this.who, caller ? [el("strong", {}, value(caller.subject)), el("span", { class: "muted" }, "role ", value(caller.role))] : el("span", { class: "muted" }, "Nobody is known"));
    const link = this.links.get("");
    link.querySelector(".count")?.remove();
    if (status?.problems.length) link.append(el("span", { class: "count", "aria-label": `${status.problems.length} problems` }, status.problems.length));
  }
}

function health({ health: colour, problems, warnings }, waits) {
  if (waits) return badge("none", "Health unknown");
  if (colour === "green") return badge("good", "Healthy");
  const number = colour === "red" ? problems.length : warnings.length;
  const words = colour === "red" ? (number === 1 ? "problem" : "problems") : "to look at";
  return badge(colour === "red" ? "bad" : "wait", `${count(number)} ${words}`);
}
