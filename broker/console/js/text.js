// Text as people see it: what a guest may have written shows all its bytes, and stays in its place.

import { el } from "./dom.js";

// Controls, marks of direction, invisible letters, tags, and what is no letter at all.
const HIDDEN = /[\u0000-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ud800-\udfff]|[\u{e0000}-\u{e0fff}]/u;
const HIDDEN_ALL = new RegExp(`(${HIDDEN.source})`, "gu");
const LONGEST = 120;

const code = (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`;

/** A value that others wrote: hidden letters are written out, and a long one is cut. */
export function value(text, longest = LONGEST) {
  if (text === null || text === undefined || text === "") return el("span", { class: "muted" }, "–");
  const letters = String(text);
  const shown = letters.length > longest ? letters.slice(0, longest) : letters;
  const parts = shown.split(HIDDEN_ALL).map((part) =>
    HIDDEN.test(part) ? el("span", { class: "esc" }, code(part)) : part);
  const more = letters.length - shown.length;
  return el("span", { class: "value" }, parts,
    more > 0 && el("span", { class: "muted" }, ` … ${count(more)} more letters`));
}

/** The same as one string, for attributes and options. */
export const plain = (text) => String(text ?? "").slice(0, LONGEST).replace(HIDDEN_ALL, code);

export const count = (number) => Number(number).toLocaleString("en");

const pad = (number) => String(number).padStart(2, "0");

/** The time of day, with the day where it is another one. */
export function clock(seconds, now = Date.now()) {
  const at = new Date(seconds * 1000);
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  return at.toDateString() === new Date(now).toDateString() ? time : `${day} ${time}`;
}

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const ago = (seconds, now = Date.now()) => `${span(now / 1000 - seconds)} ago`;

export const time = (seconds) =>
  el("time", { datetime: new Date(seconds * 1000).toISOString(), class: "num" }, clock(seconds));

export const digest = (text) =>
  text ? el("code", { title: plain(text) }, value(text.slice(0, 19))) : value(text);
