/** The open orders: columns, brackets that stand together, and the fills below their order. */

import { formatAge, formatDecimal, formatInstant, formatPrice, formatTime, formatWords, make, setText, toMillis, toNumber } from "./format.js";

/** @typedef {import("./format.js").Row} Row */
/** @typedef {import("./table.js").TableColumn} TableColumn */

const ROLES = /** @type {Record<string, string>} */ ({ entry: "entry", take_profit: "target", stop_loss: "stop" });
const ROLE_RANK = ["entry", "take_profit", "stop_loss"];

/** @param {Row} row */
export function describeOrder(row) {
  const amount = row.quantity ? formatDecimal(row.quantity) : row.notional ? `$${formatDecimal(row.notional)}` : "";
  const price = row.limit_price ? ` limit ${formatPrice(row.limit_price)}` : row.stop_price ? ` stop ${formatPrice(row.stop_price)}` : "";
  return [row.side, amount, row.symbol || legSymbols(row) || "order"].filter(Boolean).join(" ") + price;
}

/** @param {Row} row */
function legSymbols(row) {
  return Array.isArray(row.legs) ? row.legs.map((leg) => leg?.symbol).filter(Boolean).join(" / ") : "";
}

/** The role of an order in its bracket. @param {Row} row */
export function roleOf(row) {
  if (row.group_role) return ROLES[row.group_role] ?? formatWords(row.group_role);
  if (!row.parent_order_id) return "";
  if (row.order_type?.includes("stop")) return "stop";
  return row.order_type === "limit" ? "target" : "leg";
}

/**
 * @param {{zone: () => string, open: (id: string) => void, cancel: (row: Row) => void, expand: (row: Row) => void,
 *   isExpanded: (id: string) => boolean, why: () => string}} to
 * @returns {TableColumn[]}
 */
export function orderColumns(to) {
  return [
    { id: "symbol", title: "Symbol", always: true, text: (row) => row.symbol || legSymbols(row) || "—", draw: (cell, row) => drawSymbol(cell, row, to) },
    { id: "side", title: "Side", text: (row) => formatWords(row.side), class_of: (row) => (row.side === "buy" ? "buy" : "sell") },
    { id: "role", title: "Role", text: (row) => row.role ?? "" },
    { id: "type", title: "Type", text: (row) => [formatWords(row.order_type), row.time_in_force].filter(Boolean).join(" · ") },
    { id: "filled", title: "Filled", number: true, text: (row) => filledText(row), sort: filledPart, draw: drawFilled },
    { id: "notional", title: "Notional", number: true, text: (row) => formatDecimal(row.notional), sort: (row) => toNumber(row.notional) },
    { id: "limit", title: "Limit", number: true, text: (row) => formatPrice(row.limit_price), sort: (row) => toNumber(row.limit_price) },
    { id: "stop", title: "Stop", number: true, text: (row) => formatPrice(row.stop_price), sort: (row) => toNumber(row.stop_price) },
    { id: "trail", title: "Trail", number: true, text: (row) => (row.trail_percent ? `${row.trail_percent} %` : formatPrice(row.trail_price)) },
    { id: "average", title: "Average", number: true, text: (row) => formatPrice(row.filled_avg_price), sort: (row) => toNumber(row.filled_avg_price) },
    { id: "status", title: "Status", text: (row) => formatWords(row.status), class_of: (row) => `status ${statusClass(row.status)}` },
    { id: "age", title: "Age", number: true, text: (row) => formatAge(Date.now() - toMillis(row.created_at)), sort: (row) => -toMillis(row.created_at), title_of: (row) => formatInstant(row.created_at, to.zone()) },
    { id: "updated", title: "Updated", off: true, text: (row) => formatTime(row.updated_at, to.zone()), sort: (row) => toMillis(row.updated_at) },
    { id: "origin", title: "Origin", text: (row) => (row.origin === "submitted" ? "submitted here" : formatWords(row.origin)), class_of: (row) => (row.origin === "adopted" ? "dim" : ""), title_of: (row) => (row.origin === "adopted" ? "Placed elsewhere: the broker told of it" : "Asked for here, before the broker was") },
    { id: "client", title: "Client id", off: true, text: (row) => row.client_order_id ?? "" },
    { id: "id", title: "Order id", off: true, text: (row) => row.order_id },
    { id: "actions", title: "", always: true, text: () => "", draw: (cell, row) => drawCancel(cell, row, to) },
  ];
}

/** @param {string | undefined} status */
function statusClass(status) {
  if (status === "partially_filled") return "some";
  if (status?.startsWith("pending")) return "waiting";
  if (status === "held" || status === "suspended" || status === "stopped") return "held";
  return "";
}

/** @param {Row} row */
function filledText(row) {
  if (!row.quantity) return row.filled_qty && row.filled_qty !== "0" ? formatDecimal(row.filled_qty) : "";
  return `${formatDecimal(row.filled_qty)} / ${formatDecimal(row.quantity)}`;
}

/** @param {Row} row */
function filledPart(row) {
  const all = toNumber(row.quantity);
  return all ? Math.min(1, Math.max(0, toNumber(row.filled_qty) / all)) : Number.NaN;
}

/** @param {HTMLTableCellElement} cell @param {Row} row */
function drawFilled(cell, row) {
  let bar = cell.firstElementChild;
  if (!(bar instanceof HTMLElement)) {
    bar = make("span", "bar");
    bar.append(make("span", "part"), make("span", "text"));
    cell.append(bar);
  }
  const [part, text] = bar.children;
  const width = `${(filledPart(row) || 0) * 100}%`;
  if (part instanceof HTMLElement && part.style.width !== width) part.style.width = width;
  if (text) setText(text, filledText(row));
}

/** @param {HTMLTableCellElement} cell @param {Row} row @param {Parameters<typeof orderColumns>[0]} to */
function drawSymbol(cell, row, to) {
  let [more, name] = /** @type {(HTMLButtonElement | undefined)[]} */ ([...cell.querySelectorAll("button")]);
  if (!more || !name) {
    more = make("button", "more");
    more.type = "button";
    name = make("button", "link");
    name.type = "button";
    name.dataset.move = "symbol";
    const id = row.order_id;
    more.addEventListener("click", () => to.expand(row));
    name.addEventListener("click", () => to.open(id));
    cell.append(more, name);
  }
  const hasFills = row.filled_qty !== undefined && row.filled_qty !== "0";
  const isOpen = to.isExpanded(row.order_id);
  more.classList.toggle("none", !hasFills);
  more.disabled = !hasFills;
  setText(more, isOpen ? "▾" : "▸");
  const expanded = String(isOpen);
  if (more.getAttribute("aria-expanded") !== expanded) {
    more.setAttribute("aria-expanded", expanded);
  }
  const label = `Fills of ${describeOrder(row)}`;
  if (more.getAttribute("aria-label") !== label) more.setAttribute("aria-label", label);
  setText(name, row.symbol || legSymbols(row) || "—");
  const title = `The story of ${describeOrder(row)}`;
  if (name.title !== title) name.title = title;
}

/** @param {HTMLTableCellElement} cell @param {Row} row @param {Parameters<typeof orderColumns>[0]} to */
function drawCancel(cell, row, to) {
  let button = cell.querySelector("button");
  if (!button) {
    button = make("button", "cancel", "Cancel");
    button.type = "button";
    button.addEventListener("click", () => to.cancel(row));
    cell.className = "actions";
    cell.append(button);
  }
  const why = to.why();
  if (button.disabled !== Boolean(why)) button.disabled = Boolean(why);
  if (button.title !== why) button.title = why;
  const label = `Cancel ${describeOrder(row)}`;
  if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
}

/** Let the orders of one bracket stand together, the entry first; the order of the brackets is that of their first row.
 * @param {Row[]} rows @returns {Row[]} */
export function arrangeBrackets(rows) {
  /** @type {Map<string, string>} */
  const leader = new Map();
  /** @param {string} name @returns {string} */
  const find = (name) => {
    const up = leader.get(name);
    return up === undefined || up === name ? name : find(up);
  };
  /** @param {string} a @param {string} b */
  const join = (a, b) => leader.set(find(a), find(b));
  for (const row of rows) {
    if (row.parent_order_id) join(row.order_id, row.parent_order_id);
    if (row.group_id) join(row.order_id, `group ${row.group_id}`);
  }
  /** @type {Map<string, Row[]>} */
  const groups = new Map();
  for (const row of rows) {
    const name = find(row.order_id);
    const group = groups.get(name);
    if (group) group.push(row);
    else groups.set(name, [row]);
  }
  /** @type {Row[]} */
  const arranged = [];
  for (const group of groups.values()) {
    if (group.length > 1) group.sort((a, b) => rank(a) - rank(b));
    for (const [index, row] of group.entries()) {
      row.bracket = group.length < 2 ? "" : index === 0 ? "first" : index === group.length - 1 ? "last" : "middle";
      arranged.push(row);
    }
  }
  return arranged;
}

/** @param {Row} row */
function rank(row) {
  const known = ROLE_RANK.indexOf(row.group_role);
  return known >= 0 ? known : row.parent_order_id ? 3 : 0;
}

/** The fills of an order, in a row below its own. @param {Row[]} fills @param {string} zone @param {number} span */
export function makeFillsRow(fills, zone, span) {
  const row = make("tr", "fills");
  const cell = row.insertCell();
  cell.colSpan = span;
  const list = make("ol");
  for (const fill of fills) {
    const item = make("li", fill.kind === "reversal" ? "reversal" : "");
    const text = `${formatTime(fill.timestamp, zone)}  ${formatWords(fill.side)} ${formatDecimal(fill.quantity)} at ${formatPrice(fill.execution_price)}`;
    item.append(make("span", "", text), make("span", "dim", fill.kind === "fill" ? "" : ` ${formatWords(fill.kind)}`));
    list.append(item);
  }
  if (!fills.length) list.append(make("li", "dim", "Its fills are being looked up."));
  cell.append(list);
  return row;
}
