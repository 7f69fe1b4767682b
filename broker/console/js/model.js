// What follows from what the broker says: whether a decision is enforced, and in which words.

/** One channel's place in lists and addresses. */
export const keyOf = (it) => `${it.class}/${it.frontend}/${it.device}/${it.backend}`;

export const VERDICTS = {
  grant: { kind: "good", word: "Granted" },
  deny: { kind: "bad", word: "Denied" },
  pending: { kind: "wait", word: "Pending" },
};

const CLOSED = ["closed", "suspended"];

/** What became of a decision: `state` enforced, waiting, failed or wrong, and why in words. */
export function enforcement(channel) {
  const { verdict, seq, enforced, nonce_known: reported } = channel;
  const told = enforced && enforced.seq === seq ? enforced : null;
  if (enforced?.state === "failed") {
    return { state: "failed", kind: "bad", word: "Failed", why: `its agent failed: ${enforced.reason}` };
  }
  if (verdict === "pending") {
    return { state: "waiting", kind: "wait", word: "Withheld", why: "closed until it is decided" };
  }
  if (seq === null) {
    return { state: "waiting", kind: "wait", word: "Unpublished", why: "not written to xenstore yet" };
  }
  if (verdict === "grant") {
    if (told?.state === "open") return { state: "enforced", kind: "good", word: "Open", why: "its agent confirmed it" };
    if (told) return { state: "failed", kind: "bad", word: "Not opened", why: told.reason || `its agent says ${told.state}` };
    return { state: "waiting", kind: "wait", word: "Unconfirmed", why: "its agent has not said that it is open" };
  }
  if (told && CLOSED.includes(told.state)) {
    return { state: "enforced", kind: "good", word: "Closed", why: "its agent confirmed it" };
  }
  if (enforced?.state === "open") {
    return { state: told ? "wrong" : "waiting", kind: "bad", word: "Still open", why: "its agent has not closed it" };
  }
  if (!reported && !enforced) {
    return { state: "enforced", kind: "good", word: "Never opened", why: "its agent opens nothing without a grant" };
  }
  return { state: "waiting", kind: "wait", word: "Unconfirmed", why: "its agent has not said that it is closed" };
}

/** How many channels are enforced, and those that are not. */
export function summary(channels) {
  const found = { all: 0, enforced: 0, waiting: [], failed: [] };
  for (const channel of channels) {
    found.all += 1;
    const { state } = enforcement(channel);
    if (state === "enforced") found.enforced += 1;
    else if (state === "waiting") found.waiting.push(channel);
    else found.failed.push(channel);
  }
  return found;
}

export const STANDINGS = {
  labelled: { kind: "good", word: "Labelled" },
  unlabelled: { kind: "wait", word: "Unlabelled" },
  refused: { kind: "bad", word: "Refused" },
};

/** Domains that a text names: by number, uuid or name. */
export function findDomains(domains, text) {
  const wanted = text.trim();
  if (/^\d+$/.test(wanted) && domains.has(Number(wanted))) return [domains.get(Number(wanted))];
  const [, numbered] = /\((\d+)\)$/.exec(wanted) ?? [];
  if (numbered !== undefined && domains.has(Number(numbered))) return [domains.get(Number(numbered))];
  return [...domains.values()].filter((it) => it.name === wanted || it.uuid === wanted);
}
