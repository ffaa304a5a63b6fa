/** A table whose cells are changed in place: what did not change keeps its nodes, so that selection, focus and scroll stay. */

import { make, setText } from "./format.js";

/** @typedef {import("./format.js").Row} Row */
/**
 * @typedef {{id: string, title: string, number?: boolean, text: (row: Row) => string, sort?: (row: Row) => number | string,
 *   draw?: (cell: HTMLTableCellElement, row: Row) => void, title_of?: (row: Row) => string, class_of?: (row: Row) => string,
 *   always?: boolean, off?: boolean}} TableColumn
 */
/** @typedef {{node: HTMLTableRowElement, cells: HTMLTableCellElement[], row: Row, extra: HTMLTableRowElement | null}} Line */

export class LiveTable {
  /**
   * @param {HTMLTableElement} table
   * @param {{name: string, caption: string, columns: TableColumn[], key: (row: Row) => string, sort: string, descending: boolean,
   *   arrange?: (rows: Row[]) => Row[], row_class?: (row: Row) => string}} options
   */
  constructor(table, options) {
    this.table = table;
    this.options = options;
    this.filter = "";
    /** @type {Map<string, Line>} */
    this.lines = new Map();
    /** @type {Row[]} */
    this.rows = [];
    /** @type {Set<string>} */
    this.full = new Set();
    const kept = recall(options.name);
    this.sort = options.columns.some((one) => one.id === kept.sort) ? String(kept.sort) : options.sort;
    this.descending = typeof kept.descending === "boolean" ? kept.descending : options.descending;
    /** @type {Set<string>} */
    this.off = new Set(Array.isArray(kept.off) ? kept.off : options.columns.filter((one) => one.off).map((one) => one.id));
    table.append(make("caption", "unseen", options.caption));
    this.head = table.createTHead().insertRow();
    this.body = table.createTBody();
    this.heads = options.columns.map((column) => this.makeHead(column));
    this.body.addEventListener("keydown", (event) => this.move(event));
  }

  /** @param {TableColumn} column */
  makeHead(column) {
    const cell = make("th", column.number ? "number" : "");
    cell.scope = "col";
    cell.dataset.column = column.id;
    if (column.title) {
      const button = make("button", "", column.title);
      button.type = "button";
      button.addEventListener("click", () => this.sortBy(column.id));
      cell.append(button);
    } else {
      cell.append(make("span", "unseen", "Actions"));
    }
    this.head.append(cell);
    return cell;
  }

  /** @param {string} id */
  sortBy(id) {
    this.descending = this.sort === id ? !this.descending : false;
    this.sort = id;
    this.remember();
    this.show(this.rows);
  }

  remember() {
    const value = { sort: this.sort, descending: this.descending, off: [...this.off] };
    localStorage.setItem(`table.${this.options.name}`, JSON.stringify(value));
  }

  /** Offer every column as a check box. @param {Element} place */
  offerColumns(place) {
    for (const column of this.options.columns.filter((one) => !one.always && one.title)) {
      const label = make("label", "check");
      const box = make("input");
      box.type = "checkbox";
      box.checked = !this.off.has(column.id);
      box.addEventListener("change", () => {
        if (box.checked) this.off.delete(column.id);
        else this.off.add(column.id);
        this.remember();
        this.show(this.rows);
      });
      label.append(box, ` ${column.title}`);
      place.append(label);
    }
  }

  /** Forget what is shown: the rows that come next are what the table begins with. */
  forget() {
    this.rows = [];
  }

  /** Show these rows; returns how many pass the filter. @param {Row[]} rows */
  show(rows) {
    const known = new Set(this.rows.map(this.options.key));
    this.rows = rows;
    const words = this.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = words.length ? rows.filter((row) => words.every((word) => this.search(row).includes(word))) : rows;
    const sorted = this.arrange(wanted);
    this.hideEmpty(rows);
    const keys = new Set(sorted.map(this.options.key));
    for (const [key, line] of this.lines) {
      if (!keys.has(key)) {
        line.extra?.remove();
        line.node.remove();
        this.lines.delete(key);
      }
    }
    /** @type {Element | null} */
    let next = this.body.firstElementChild;
    for (const row of sorted) {
      // What a table begins with is no news, nor what a filter brings back.
      const line = this.line(row, known.size > 0 && !known.has(this.options.key(row)));
      this.draw(line, row);
      // A row is moved only where it does not stand in its place already.
      if (line.node !== next) this.body.insertBefore(line.node, next);
      if (line.extra && line.extra !== line.node.nextElementSibling) line.node.after(line.extra);
      next = (line.extra ?? line.node).nextElementSibling;
    }
    for (const [index, column] of this.options.columns.entries()) {
      const state = column.id === this.sort ? (this.descending ? "descending" : "ascending") : "none";
      const head = this.heads[index];
      if (head && column.title && head.getAttribute("aria-sort") !== state) head.setAttribute("aria-sort", state);
    }
    return sorted.length;
  }

  /** @param {Row[]} rows */
  arrange(rows) {
    const column = this.options.columns.find((one) => one.id === this.sort);
    const value = column?.sort ?? column?.text ?? (() => "");
    const sign = this.descending ? -1 : 1;
    const sorted = rows
      .map((row) => /** @type {const} */ ([value(row), row]))
      .sort(([a], [b]) => sign * compare(a, b))
      .map(([, row]) => row);
    return this.options.arrange ? this.options.arrange(sorted) : sorted;
  }

  /** @param {Row} row */
  search(row) {
    return this.options.columns.map((one) => one.text(row)).join(" ").toLowerCase() + this.options.key(row).toLowerCase();
  }

  /** @param {Row} row @param {boolean} isNews */
  line(row, isNews) {
    const key = this.options.key(row);
    let line = this.lines.get(key);
    if (!line) {
      const node = make("tr", isNews ? "new" : "");
      // Or it would be shown as new again whenever it is moved.
      node.addEventListener("animationend", () => node.classList.remove("new"));
      node.dataset.key = key;
      const cells = this.options.columns.map((column) => {
        const cell = node.insertCell();
        cell.dataset.column = column.id;
        if (column.number) cell.className = "number";
        if (column.title) cell.dataset.title = column.title;
        return cell;
      });
      line = { node, cells, row: {}, extra: null };
      this.lines.set(key, line);
    }
    return line;
  }

  /** @param {Line} line @param {Row} row */
  draw(line, row) {
    line.row = row;
    const mark = this.options.row_class?.(row) ?? "";
    if ((line.node.dataset.mark ?? "") !== mark) line.node.dataset.mark = mark;
    for (const [index, column] of this.options.columns.entries()) {
      const cell = line.cells[index];
      if (!cell) continue;
      cell.hidden = !this.full.has(column.id);
      if (column.draw) column.draw(cell, row);
      else setText(cell, column.text(row));
      if (column.class_of) {
        const name = `${column.number ? "number " : ""}${column.class_of(row)}`;
        if (cell.className !== name) cell.className = name;
      }
      const title = column.title_of?.(row) ?? "";
      if (cell.title !== title) cell.title = title;
    }
    if (line.extra?.firstElementChild instanceof HTMLTableCellElement) line.extra.firstElementChild.colSpan = this.full.size;
  }

  /** Columns without a value in any row vanish, like those that were switched off. @param {Row[]} rows */
  hideEmpty(rows) {
    for (const [index, column] of this.options.columns.entries()) {
      const isShown = column.always || (!this.off.has(column.id) && rows.some((row) => column.text(row) !== ""));
      if (isShown) this.full.add(column.id);
      else this.full.delete(column.id);
      const head = this.heads[index];
      if (head) head.hidden = !isShown;
    }
  }

  /** Draw one column again: what depends on the time. @param {string} id */
  tick(id) {
    const index = this.options.columns.findIndex((one) => one.id === id);
    const column = this.options.columns[index];
    if (!column) return;
    for (const line of this.lines.values()) {
      const cell = line.cells[index];
      if (cell) setText(cell, column.text(line.row));
    }
  }

  /** Arrow keys go from row to row. @param {KeyboardEvent} event */
  move(event) {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (!step || !(event.target instanceof HTMLButtonElement)) return;
    const name = event.target.dataset.move;
    const buttons = [...this.body.querySelectorAll(`button[data-move="${name}"]`)];
    const next = buttons[buttons.indexOf(event.target) + step];
    if (name && next instanceof HTMLElement) {
      event.preventDefault();
      next.focus();
    }
  }
}

/** @param {string} name @returns {{sort?: unknown, descending?: unknown, off?: unknown}} */
function recall(name) {
  try {
    const found = JSON.parse(localStorage.getItem(`table.${name}`) ?? "{}");
    return typeof found === "object" && found !== null ? found : {};
  } catch {
    return {};
  }
}

/** Numbers before texts before what is missing. @param {number | string} a @param {number | string} b */
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") {
    if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
    return a - b;
  }
  return String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0;
}
