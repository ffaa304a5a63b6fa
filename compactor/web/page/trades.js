/** The trades of today: columns of their table, and the sums by symbol. */

import { formatDecimal, formatInstant, formatPrice, formatTime, formatWords, make, toMillis, toNumber } from "./format.js";

/** @typedef {import("./format.js").Row} Row */
/** @typedef {import("./table.js").TableColumn} TableColumn */

/** @param {{zone: () => string, open: (id: string) => void}} to @returns {TableColumn[]} */
export function tradeColumns(to) {
  return [
    { id: "time", title: "Time", always: true, text: (row) => formatTime(row.timestamp, to.zone()), sort: (row) => toMillis(row.timestamp), title_of: (row) => formatInstant(row.timestamp, to.zone()) },
    { id: "symbol", title: "Symbol", always: true, text: (row) => row.symbol ?? "", draw: (cell, row) => drawSymbol(cell, row, to) },
    { id: "side", title: "Side", text: (row) => formatWords(row.side), class_of: (row) => (row.side === "buy" ? "buy" : "sell") },
    { id: "quantity", title: "Quantity", number: true, text: (row) => formatDecimal(row.quantity), sort: (row) => toNumber(row.quantity) },
    { id: "price", title: "Price", number: true, text: (row) => formatPrice(row.execution_price), sort: (row) => toNumber(row.execution_price) },
    { id: "requested", title: "Requested", number: true, text: (row) => formatPrice(row.requested_price), sort: (row) => toNumber(row.requested_price) },
    { id: "kind", title: "Kind", text: (row) => (row.kind === "fill" ? "" : formatWords(row.kind)) },
    { id: "type", title: "Type", off: true, text: (row) => formatWords(row.order_type) },
    { id: "client", title: "Client id", off: true, text: (row) => row.client_order_id ?? "" },
    { id: "order", title: "Order id", off: true, text: (row) => row.order_id },
    { id: "id", title: "Trade id", off: true, text: (row) => row.trade_id },
  ];
}

/** @param {HTMLTableCellElement} cell @param {Row} row @param {{open: (id: string) => void}} to */
function drawSymbol(cell, row, to) {
  if (cell.firstChild) return;
  const button = make("button", "link", row.symbol || "—");
  button.type = "button";
  button.dataset.move = "symbol";
  button.title = "The story of its order";
  button.addEventListener("click", () => to.open(row.order_id));
  cell.append(button);
}

const SLIPPAGE = "Paid above, or got below, the requested price; negative is better than requested";

/** @returns {TableColumn[]} */
export function summaryColumns() {
  /** @param {string} id @param {string} title @param {string} field @returns {TableColumn} */
  const number = (id, title, field) => ({ id, title, number: true, text: (row) => formatDecimal(row[field]), sort: (row) => toNumber(row[field]) });
  return [
    { id: "symbol", title: "Symbol", always: true, text: (row) => row.symbol || "—" },
    { id: "fills", title: "Fills", number: true, text: (row) => String(row.fills), sort: (row) => row.fills },
    number("bought", "Bought", "bought"),
    number("sold", "Sold", "sold"),
    { ...number("net", "Net", "net"), class_of: (row) => (toNumber(row.net) < 0 ? "sell" : toNumber(row.net) > 0 ? "buy" : "") },
    { id: "slippage", title: "Slippage", number: true, text: (row) => (row.slippage_fills ? formatDecimal(row.slippage) : ""), sort: (row) => toNumber(row.slippage), title_of: () => SLIPPAGE },
    { id: "bps", title: "bp", number: true, text: (row) => row.slippage_bps ?? "", sort: (row) => toNumber(row.slippage_bps), title_of: () => `${SLIPPAGE}; in basis points of what was requested` },
  ];
}
