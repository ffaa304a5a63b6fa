/** What was asked for here and is no order: on its way to the broker, refused by it, or never placed. */

import { formatAge, formatDecimal, formatInstant, formatPrice, formatTime, formatWords, toMillis } from "./format.js";

/** @typedef {import("./format.js").Row} Row */
/** @typedef {import("./table.js").TableColumn} TableColumn */

/** The requests without an answer, and those of the trading day that led to no order.
 * @param {Row | null} status @param {number} dayStart @returns {Row[]} */
export function listAsked(status, dayStart) {
  if (!status) return [];
  const onTheWay = (status.intents ?? []).map((/** @type {Row} */ one) => ({ ...one, ...one.request, key: one.client_order_id, state: "submitting" }));
  const unplaced = (status.unplaced ?? [])
    .filter((/** @type {Row} */ one) => toMillis(one.ts) >= dayStart)
    .map((/** @type {Row} */ one) => ({ ...one.request, ...one, key: `${one.client_order_id} ${one.ts}`, state: one.outcome }));
  return [...onTheWay, ...unplaced];
}

/** @param {() => string} zone @returns {TableColumn[]} */
export function askedColumns(zone) {
  return [
    { id: "state", title: "State", always: true, text: (row) => formatWords(row.state), class_of: (row) => `status ${row.state === "submitting" ? "waiting" : "bad"}` },
    { id: "symbol", title: "Symbol", text: (row) => text(row.symbol) },
    { id: "side", title: "Side", text: (row) => formatWords(text(row.side)), class_of: (row) => (row.side === "buy" ? "buy" : "sell") },
    { id: "quantity", title: "Quantity", number: true, text: (row) => formatDecimal(text(row.quantity)) || (row.notional ? `$${formatDecimal(text(row.notional))}` : "") },
    { id: "type", title: "Type", text: (row) => [formatWords(text(row.order_type)), text(row.time_in_force)].filter(Boolean).join(" · ") },
    { id: "limit", title: "Limit", number: true, text: (row) => formatPrice(text(row.limit_price)) },
    { id: "stop", title: "Stop", number: true, text: (row) => formatPrice(text(row.stop_price)) },
    { id: "time", title: "Since", number: true, text: (row) => (row.state === "submitting" ? formatAge(Date.now() - toMillis(row.ts)) : formatTime(row.ts, zone())), sort: (row) => toMillis(row.ts), title_of: (row) => formatInstant(row.ts, zone()) },
    { id: "reason", title: "Why", text: (row) => (row.state === "submitting" ? "no answer of the broker yet" : [row.reason, row.code && !String(row.reason).includes(row.code) ? `(${row.code})` : ""].filter(Boolean).join(" ")), class_of: () => "reason" },
    { id: "note", title: "Asked by", text: (row) => [(row.tags ?? []).join(", "), row.note].filter(Boolean).join(": "), class_of: () => "reason" },
    { id: "client", title: "Client id", text: (row) => row.client_order_id, class_of: () => "dim" },
  ];
}

/** A term as it was asked for: whatever the program wrote. @param {any} value */
function text(value) {
  return value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
}
