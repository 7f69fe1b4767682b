// Tables for many rows: filtered, sorted, a page at a time; what changes keeps its place.

import { el, empty, set } from "./dom.js";
import { count, plain } from "./text.js";

const PAGE = 100;
const TYPING = 120; // Milliseconds between the last key and the filter.

/**
 * A table. `columns` are {head, cell(row), text(row), sort(row), right, tight, name}; `text` is what the
 * filter looks at, `sort` what orders. `choices` are {name, options: [[value, words, test]]}.
 */
export class DataTable {
  constructor({ name, columns, keyOf, none, choices = [], filter = "", order = null, chosen = {}, tools }) {
    Object.assign(this, { name, columns, keyOf, none, tools });
    this.rows = [];
    this.page = 0;
    this.order = order;
    this.words = filter.toLowerCase();
    this.choices = choices;
    this.chosen = { ...chosen };
    this.known = null;
    this.input = el("input", {
      class: "field", type: "search", placeholder: `Filter ${name}`, "aria-label": `Filter ${name}`, value: filter, autocomplete: "off", spellcheck: "false", oninput: () => this.#typed(),
    });
    this.shown = el("span", { class: "count", role: "status" });
    this.head = el("tr", { role: "row" });
    this.body = el("tbody", { role: "rowgroup" });
    this.table = el("table", { class: "cards", role: "table", "aria-label": name },
      el("thead", { role: "rowgroup" }, this.head), this.body);
    this.scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table of ${name}` }, this.table);
    this.nothing = el("div");
    this.pager = el("nav", { class: "pager", "aria-label": `Pages of ${name}` });
    this.bar = el("div", { class: "bar-top" }, this.input, choices.map((it) => this.#choice(it)), tools, this.shown);
    this.element = el("div", { class: "table" }, this.bar, this.scroll, this.nothing, this.pager);
    this.#heads();
  }

  /** Show these rows. */
  show(rows) {
    this.rows = rows;
    this.#draw();
  }

  #typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      this.words = this.input.value.trim().toLowerCase();
      this.page = 0;
      this.#draw();
    }, TYPING);
  }

  #choice({ name, options }) {
    const select = el("select", {
      class: "choice", "aria-label": name,
      onchange: () => { this.chosen[name] = select.value; this.page = 0; this.#draw(); },
    }, el("option", { value: "" }, `${name}: all`),
    options.map(([value, words]) => el("option", { value, selected: this.chosen[name] === value }, words)));
    return select;
  }

  #heads() {
    set(this.head, this.columns.map((column, number) => {
      const sorted = this.order?.[0] === number ? (this.order[1] > 0 ? "ascending" : "descending") : null;
      const properties = { scope: "col", role: "columnheader", class: column.right ? "right" : null, "aria-sort": sorted };
      if (!column.sort) return el("th", properties, el("span", {}, column.head));
      const turn = () => {
        this.order = [number, this.order?.[0] === number ? -this.order[1] : 1];
        this.#heads();
        this.head.children[number].firstChild.focus();
        this.#draw();
      };
      return el("th", properties, el("button", { type: "button", onclick: turn }, column.head));
    }));
  }

  #wanted() {
    const words = this.words.split(/\s+/).filter(Boolean);
    const tests = this.choices.flatMap(({ name, options }) =>
      options.filter(([value]) => value === this.chosen[name]).map(([, , test]) => test));
    const found = this.rows.filter((row) => {
      if (!tests.every((test) => test(row))) return false;
      if (!words.length) return true;
      const text = this.columns.map((column) => column.text?.(row) ?? "").join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    if (this.order) {
      const [number, way] = this.order;
      const { sort } = this.columns[number];
      found.sort((one, other) => way * compare(sort(one), sort(other)));
    }
    return found;
  }

  #draw() {
    const found = this.#wanted();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    this.page = Math.min(this.page, pages - 1);
    const shown = found.slice(this.page * PAGE, (this.page + 1) * PAGE);
    const held = this.#focused();
    const keys = new Set();
    set(this.body, shown.map((row) => {
      const key = this.keyOf(row);
      keys.add(key);
      const fresh = this.known && !this.known.has(key) && !this.words && this.page === 0;
      return el("tr", { role: "row", "data-key": key, class: fresh && this.marks ? "fresh" : null },
        this.columns.map((column) => this.#cell(column, row)));
    }));
    this.known = keys;
    this.#focus(held);
    const some = found.length > 0;
    this.scroll.hidden = !some;
    this.bar.hidden = !this.rows.length && !this.tools;
    set(this.nothing, !some && (this.rows.length ? empty(`None of ${count(this.rows.length)} match`, "Change the filter to see more.") : empty(...[this.none].flat())));
    this.shown.textContent = found.length === this.rows.length
      ? count(found.length) : `${count(found.length)} of ${count(this.rows.length)}`;
    this.#pages(found.length, pages);
  }

  #cell(column, row) {
    const kind = [column.right && "right", column.tight && "tight", column.name && "name"].filter(Boolean).join(" ");
    return el("td", { role: "cell", class: kind || null, "data-head": column.head }, column.cell(row));
  }

  #focused() {
    const link = document.activeElement;
    const row = this.body.contains(link) && link.closest("tr");
    return row ? [row.dataset.key, [...row.querySelectorAll("a, button")].indexOf(link)] : null;
  }

  #focus(held) {
    if (!held) return;
    const row = [...this.body.children].find((it) => it.dataset.key === held[0]);
    row?.querySelectorAll("a, button")[held[1]]?.focus({ preventScroll: true });
  }

  #pages(all, pages) {
    this.pager.hidden = pages === 1;
    if (pages === 1) return;
    const first = this.page * PAGE + 1;
    const turn = (words, by, dead) => el("button", {
      class: "button", type: "button", disabled: dead,
      onclick: () => { this.page += by; this.#draw(); this.scroll.scrollTop = 0; },
    }, words);
    const held = this.pager.contains(document.activeElement) ? document.activeElement.textContent : null;
    set(this.pager, el("span", {}, `${count(first)}–${count(Math.min(all, first + PAGE - 1))} of ${count(all)}`),
      turn("Previous", -1, this.page === 0), turn("Next", 1, this.page === pages - 1));
    if (held) [...this.pager.children].find((it) => it.textContent === held)?.focus();
  }
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return plain(one).localeCompare(plain(other), "en", { numeric: true });
}
