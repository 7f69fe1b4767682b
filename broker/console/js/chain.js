// The audit log's chain, checked here and not by the broker: each record's hash, and what it follows.
// How a record is written and signed is docs/audit.md's.

const GENESIS = "0".repeat(64);
const TAIL = /,"hash":"([0-9a-f]{64})"\}$/;
const START = /^\{"n":([1-9][0-9]*),"event":"([a-z_]+)",/;
const CONTEXT = "xpb-audit-v1\n";

const bytes = (text) => new TextEncoder().encode(text);

export class BrokenChain extends Error {}

/** A record is not the one that was seen in its place before. */
export class OtherChain extends Error {}

async function hashOf(before, body) {
  const sum = await crypto.subtle.digest("SHA-256", bytes(before + body));
  return Array.from(new Uint8Array(sum), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function base64(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}

/** The broker's public key, out of the text of its broker.pub. Throws where it is none. */
export function readKey(pem) {
  const [, body] = /-----BEGIN PUBLIC KEY-----([\s\S]+?)-----END PUBLIC KEY-----/.exec(pem) ?? [];
  if (!body) throw new Error("This file is no public key in PEM.");
  return crypto.subtle.importKey("spki", base64(body.replace(/\s/g, "")), { name: "Ed25519" }, false, ["verify"]);
}

/**
 * Checks records as they are shown, the oldest first. `counted` is how many were right, `signed` how
 * many checkpoints the key signed. `known` is a record {n, hash} that was seen before.
 */
export class Chain {
  constructor(key = null, known = null) {
    this.key = key;
    this.known = known;
    this.counted = 0;
    this.signed = 0;
    this.checkpoints = 0;
    this.first = null;
    this.last = null;
  }

  /** Take the next record's line. Throws BrokenChain. */
  async take(line) {
    const [, hash] = TAIL.exec(line) ?? [];
    const [, number, kind] = START.exec(line) ?? [];
    if (!hash || !number) throw new BrokenChain("A line is no record.");
    const n = Number(number);
    const before = this.last?.hash ?? (n === 1 ? GENESIS : null);
    if (this.last && n !== this.last.n + 1) throw new BrokenChain(`Record ${n} stands where ${this.last.n + 1} belongs.`);
    const body = line.slice(0, -',"hash":"'.length - 64 - '"}'.length);
    if (before !== null && (await hashOf(before, body)) !== hash) throw new BrokenChain(`Record ${n} is not as it was written, or the one before is not.`);
    if (this.known?.n === n && this.known.hash !== hash) throw new OtherChain(n);
    if (kind === "checkpoint") await this.#checkpoint(JSON.parse(line), n, before);
    if (before !== null) this.counted += 1;
    this.first ??= n;
    this.last = { n, hash };
  }

  async #checkpoint(it, n, before) {
    if (before !== null && it.head !== before) throw new BrokenChain(`The checkpoint ${n} is not of the record before it.`);
    this.checkpoints += 1;
    if (!this.key) return;
    const signed = bytes(`${CONTEXT}${n - 1} ${it.head} ${it.t.toFixed(3)}\n`);
    if (!(await crypto.subtle.verify({ name: "Ed25519" }, this.key, base64(it.sig), signed))) throw new BrokenChain(`The checkpoint ${n} is not signed by this key.`);
    this.signed += 1;
  }
}
