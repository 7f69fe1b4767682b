// Which page an address stands for: `#/page/part/part?name=value`.

import { failure, set } from "./dom.js";
import { live } from "./live.js";
import { Shell } from "./shell.js";
import agents from "./pages/agents.js";
import audit from "./pages/audit.js";
import between from "./pages/between.js";
import channel from "./pages/channel.js";
import channels from "./pages/channels.js";
import domain from "./pages/domain.js";
import domains from "./pages/domains.js";
import feed from "./pages/feed.js";
import filter from "./pages/filter.js";
import filters from "./pages/filters.js";
import network from "./pages/network.js";
import overview from "./pages/overview.js";
import policy from "./pages/policy.js";
import reach from "./pages/reach.js";
import violations from "./pages/violations.js";

const PAGES = {
  "": overview, live: feed, between, reach, domains, domain, channels, channel, violations, agents, network, filters, filter, policy, audit,
};

const shell = new Shell();
let open = null;

function route() {
  const [path, query = ""] = decodeSafely(location.hash.replace(/^#\/?/, "")).split("?");
  const [name, ...parts] = path.split("/");
  return { name, parts, query: new URLSearchParams(query) };
}

function decodeSafely(text) {
  try {
    return decodeURI(text);
  } catch {
    return text;
  }
}

function turn(focus) {
  const address = route();
  const page = Object.hasOwn(PAGES, address.name) ? PAGES[address.name] : overview;
  open?.abort();
  open = new AbortController();
  shell.turnTo(page, address.name, typeof page.title === "function" ? page.title(address) : page.title);
  const context = { ...address, signal: open.signal };
  try {
    const update = page.open(shell.content, context);
    if (update) {
      live.addEventListener("change", update, { signal: open.signal });
      update();
    }
  } catch (error) {
    set(shell.content, failure(error));
  }
  if (focus) shell.title.focus({ preventScroll: true });
}

/** A page that could not be shown while the broker was lost is opened again once it is found. */
let lost = false;
live.addEventListener("change", () => {
  const found = lost && live.phase !== "stale";
  lost = live.phase === "stale";
  if (found && shell.content.querySelector(".state.error")) turn(false);
});

shell.start();
window.addEventListener("hashchange", () => turn(true));
turn(false);
live.start();
