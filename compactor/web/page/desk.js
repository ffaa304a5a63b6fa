/** One team's orders and trades: loaded once, then kept current by the event stream, change by change. */

import { Api, EventFeed, Refusal } from "./api.js";
import { askedColumns, listAsked } from "./asked.js";
import { confirmCancel, cancelOrders, withoutLegs } from "./cancel.js";
import { DayChart } from "./chart.js";
import { formatAge, formatTime, formatWords, get, make, setText, toMillis, tradingDayStart } from "./format.js";
import { arrangeBrackets, describeOrder, makeFillsRow, orderColumns, roleOf } from "./orders.js";
import { LiveTable } from "./table.js";
import { summaryColumns, tradeColumns } from "./trades.js";

/** @typedef {import("./format.js").Row} Row */
const TRADES_PAGES_MAX = 5;
const FINDINGS_MAX = 50;

export class Desk {
  /**
   * @param {{zone: () => string, open: (id: string) => void, onStatus: (status: Row) => void, onRefused: (refusal: Refusal) => void,
   *   onState: (isOpen: boolean, reason: string) => void, onOrder: (id: string) => void}} to
   */
  constructor(to) {
    this.to = to;
    this.api = new Api("");
    this.team = "";
    this.isReadOnly = false;
    /** @type {EventFeed | null} */
    this.feed = null;
    /** @type {Map<string, Row>} */
    this.orders = new Map();
    /** @type {Map<string, Row>} */
    this.trades = new Map();
    /** @type {Row[]} */
    this.findings = [];
    /** @type {Row | null} */
    this.status = null;
    /** @type {Map<string, Row[]>} */
    this.olderFills = new Map();
    /** @type {Set<string>} */
    this.expanded = new Set();
    this.dayStart = 0;
    this.frame = 0;
    this.generation = 0;
    this.orderTable = new LiveTable(get("orders-table", HTMLTableElement), {
      name: "orders",
      caption: "Open orders",
      columns: orderColumns({
        zone: to.zone,
        open: to.open,
        cancel: (row) => void this.cancel([this.orders.get(row.order_id) ?? row]),
        expand: (row) => this.toggleFills(row.order_id),
        isExpanded: (id) => this.expanded.has(id),
        why: () => this.whyNoCancel(),
      }),
      key: (row) => row.order_id,
      sort: "age",
      descending: false,
      arrange: arrangeBrackets,
      row_class: (row) => row.bracket ?? "",
    });
    this.askedTable = new LiveTable(get("asked-table", HTMLTableElement), {
      name: "asked", caption: "Requests without an order", columns: askedColumns(to.zone), key: (row) => row.key, sort: "time", descending: true,
      row_class: (row) => row.state,
    });
    this.tradeTable = new LiveTable(get("trades-table", HTMLTableElement), {
      name: "trades", caption: "Trades today", columns: tradeColumns(to), key: (row) => row.trade_id, sort: "time", descending: true,
      row_class: (row) => (row.kind === "reversal" ? "reversal" : ""),
    });
    this.sumTable = new LiveTable(get("summary-table", HTMLTableElement), {
      name: "summary", caption: "Sums of today by symbol", columns: summaryColumns(), key: (row) => row.symbol, sort: "symbol", descending: false,
    });
    this.chart = new DayChart(get("chart", HTMLElement), get("chart-note", HTMLElement), get("chart-symbol", HTMLSelectElement), to.zone);
    for (const [name, table] of /** @type {const} */ ([["orders", this.orderTable], ["trades", this.tradeTable]])) {
      const place = get(`${name}-columns`, HTMLElement).querySelector("div");
      if (place) table.offerColumns(place);
      const filter = get(`${name}-filter`, HTMLInputElement);
      // Of this tab only: elsewhere nobody would look for what a filter of yesterday hides.
      filter.value = table.filter = sessionStorage.getItem(`filter.${name}`) ?? "";
      filter.addEventListener("input", () => {
        table.filter = filter.value;
        sessionStorage.setItem(`filter.${name}`, filter.value);
        this.draw();
      });
    }
    get("cancel-all", HTMLButtonElement).addEventListener("click", () => void this.cancel(withoutLegs([...this.orders.values()])));
  }

  close() {
    this.generation += 1;
    this.feed?.close();
    this.feed = null;
  }

  /** Load a team and follow it. @param {Api} api @param {string} team @param {boolean} isReadOnly */
  async show(api, team, isReadOnly) {
    this.close();
    if (team !== this.team) this.forget();
    this.api = api;
    this.team = team;
    this.isReadOnly = isReadOnly;
    const generation = this.generation;
    this.dayStart = tradingDayStart(Date.now());
    const [open, trades, findings, status] = await Promise.all([
      api.get(Api.team(team, "orders/open")),
      this.loadTrades(api, team),
      api.get(Api.team(team, `findings?limit=${FINDINGS_MAX}`)),
      api.get(Api.team(team, "status")),
    ]);
    if (generation !== this.generation) return;
    this.orders = new Map(open.body.orders.map((/** @type {Row} */ row) => [row.order_id, prepare(row)]));
    this.trades = new Map(trades.rows.map((row) => [row.trade_id, row]));
    this.findings = findings.body.findings;
    this.takeStatus(status.body);
    this.draw();
    // From the oldest of the answers on: what they have already is applied again, and changes nothing.
    const after = Math.min(open.offset, trades.offset, findings.offset);
    this.feed = new EventFeed(api, team, after, {
      onEvents: (events) => this.take(events),
      onState: this.to.onState,
      onLost: (refusal) => (refusal.status === 400 ? void this.reload() : this.to.onRefused(refusal)),
    });
  }

  async reload() {
    try {
      await this.show(this.api, this.team, this.isReadOnly);
    } catch (error) {
      if (error instanceof Refusal) this.to.onRefused(error);
      else setTimeout(() => void this.reload(), 3000);
    }
  }

  forget() {
    this.orders.clear();
    this.trades.clear();
    this.olderFills.clear();
    this.expanded.clear();
    this.findings = [];
    this.status = null;
    for (const table of [this.orderTable, this.askedTable, this.tradeTable, this.sumTable]) table.forget();
  }

  /** @param {Api} api @param {string} team */
  async loadTrades(api, team) {
    const since = encodeURIComponent(new Date(this.dayStart).toISOString());
    /** @type {Row[]} */
    const rows = [];
    let offset = Number.POSITIVE_INFINITY;
    let cursor = "";
    for (let page = 0; page < TRADES_PAGES_MAX; page += 1) {
      const answer = await api.get(Api.team(team, `trades?limit=1000&since=${since}${cursor && `&cursor=${cursor}`}`));
      offset = Math.min(offset, answer.offset);
      rows.push(...answer.body.trades);
      cursor = answer.body.next_cursor ?? "";
      if (!cursor) break;
    }
    return { rows: rows.reverse(), offset };
  }

  /** @param {import("./api.js").ServerEvent[]} events */
  take(events) {
    for (const { kind, data } of events) {
      if (kind === "order") this.takeOrder(data);
      else if (kind === "trade") this.takeTrade(data);
      else if (kind === "finding") this.takeFinding(data);
      else if (kind === "status") this.takeStatus(data);
    }
    this.schedule();
  }

  /** @param {Row} row */
  takeOrder(row) {
    this.to.onOrder(row.order_id);
    if (row.open) {
      this.orders.set(row.order_id, prepare(row));
    } else if (this.orders.delete(row.order_id)) {
      this.expanded.delete(row.order_id);
      setText(get("announce", HTMLElement), `${describeOrder(row)}: ${formatWords(row.status)}`);
    }
    if (this.status) this.status.as_of = row.updated_at ?? this.status.as_of;
  }

  /** @param {Row} row */
  takeTrade(row) {
    this.to.onOrder(row.order_id);
    if (toMillis(row.timestamp) >= this.dayStart) this.trades.set(row.trade_id, row);
  }

  /** @param {Row} row */
  takeFinding(row) {
    const isKnown = this.findings.some((one) => one.offset === row.offset && one.kind === row.kind && one.detail === row.detail);
    if (!isKnown) this.findings = [row, ...this.findings].slice(0, FINDINGS_MAX);
  }

  /** @param {Row} status */
  takeStatus(status) {
    this.status = status;
    this.to.onStatus(status);
    this.schedule();
  }

  schedule() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
    // A page in the background gets no frames, and is to be right when it is looked at.
    if (document.hidden) this.draw();
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const orders = [...this.orders.values()];
    const shown = this.orderTable.show(orders);
    this.drawFills();
    const asked = listAsked(this.status, this.dayStart);
    get("asked", HTMLElement).hidden = this.askedTable.show(asked) === 0;
    setText(get("asked-count", HTMLElement), String(asked.length));
    setText(get("asked-title", HTMLElement), asked.some((row) => row.state === "submitting") ? "Asked for, and no order yet" : "Asked for, and not placed");
    setText(get("orders-count", HTMLElement), count(shown, orders.length));
    setText(get("orders-empty", HTMLElement), this.whyNoOrders(orders.length, shown));
    get("orders-empty", HTMLElement).hidden = shown > 0;
    get("orders-table", HTMLElement).hidden = shown === 0;
    get("cancel-all", HTMLButtonElement).hidden = orders.length === 0;
    const why = this.whyNoCancel();
    get("cancel-all", HTMLButtonElement).disabled = why !== "";
    get("cancel-all", HTMLButtonElement).title = why;
    const trades = [...this.trades.values()];
    const seen = this.tradeTable.show(trades);
    setText(get("trades-count", HTMLElement), count(seen, trades.length));
    setText(get("trades-empty", HTMLElement), trades.length ? "No trade fits the filter." : `No trade since the trading day began, ${formatTime(new Date(this.dayStart).toISOString(), this.to.zone())}.`);
    get("trades-empty", HTMLElement).hidden = seen > 0;
    get("trades-table", HTMLElement).hidden = seen === 0;
    this.sumTable.show(sumUp(trades));
    get("summary-table", HTMLElement).hidden = trades.length === 0;
    this.chart.show(trades.sort((a, b) => toMillis(a.timestamp) - toMillis(b.timestamp)));
    this.drawFindings();
  }

  /** Once a second: ages, and the day that may have ended. */
  tick() {
    this.orderTable.tick("age");
    this.askedTable.tick("time");
    if (this.team && tradingDayStart(Date.now()) !== this.dayStart) {
      this.dayStart = tradingDayStart(Date.now());
      for (const [id, trade] of this.trades) if (toMillis(trade.timestamp) < this.dayStart) this.trades.delete(id);
      this.schedule();
    }
    this.feed?.check();
  }

  drawFindings() {
    const panel = get("findings", HTMLDetailsElement);
    panel.hidden = this.findings.length === 0;
    setText(get("findings-count", HTMLElement), this.findings.length === FINDINGS_MAX ? `the last ${FINDINGS_MAX}` : String(this.findings.length));
    const texts = this.findings.map((one) => `${formatWords(one.kind)}: ${one.detail}`);
    const list = get("findings-list", HTMLElement);
    if (texts.join("\n") !== [...list.children].map((one) => one.textContent).join("\n")) list.replaceChildren(...texts.map((text) => make("li", "", text)));
  }

  // Fills below their order.

  /** @param {string} id */
  toggleFills(id) {
    if (this.expanded.has(id)) this.expanded.delete(id);
    else {
      this.expanded.add(id);
      void this.lookUpFills(id);
    }
    this.draw();
  }

  /** An order may be older than today: its fills are in its story. @param {string} id */
  async lookUpFills(id) {
    try {
      const { body } = await this.api.get(Api.team(this.team, `orders/${encodeURIComponent(id)}/history`));
      this.olderFills.set(id, body.events.flatMap((/** @type {any} */ event) => event.trades ?? []));
      this.draw();
    } catch {
      this.olderFills.delete(id);
    }
  }

  drawFills() {
    for (const [id, line] of this.orderTable.lines) {
      if (!this.expanded.has(id)) {
        line.extra?.remove();
        line.extra = null;
        continue;
      }
      const fills = new Map((this.olderFills.get(id) ?? []).map((one) => [one.trade_id, one]));
      for (const trade of this.trades.values()) if (trade.order_id === id) fills.set(trade.trade_id, trade);
      const row = makeFillsRow([...fills.values()], this.to.zone(), this.orderTable.full.size);
      if (line.extra?.textContent === row.textContent) continue;
      line.extra?.remove();
      line.node.after(row);
      line.extra = row;
    }
  }

  // Cancel.

  whyNoCancel() {
    if (this.isReadOnly) return "This key may only read";
    if (this.status && !this.status.trading) return "This server has no keys of the broker";
    return "";
  }

  /** @param {Row[]} rows */
  async cancel(rows) {
    if (!rows.length || !this.status?.trading || !(await confirmCancel(rows, this.status.trading, this.team))) return;
    const problems = await cancelOrders(this.api, this.team, rows);
    const announce = get("announce", HTMLElement);
    setText(announce, problems.length ? "" : rows.length === 1 ? "The broker was asked to cancel the order" : `The broker was asked to cancel ${rows.length} orders`);
    const place = get("orders-problems", HTMLElement);
    place.hidden = problems.length === 0;
    place.replaceChildren(...problems.slice(0, 5).map((text) => make("li", "", text)));
    if (problems.length) setTimeout(() => (place.hidden = true), 30_000);
  }

  /** @param {number} all @param {number} shown */
  whyNoOrders(all, shown) {
    if (shown) return "";
    if (all) return "No open order fits the filter.";
    const status = this.status;
    if (!status) return "Loading…";
    if (!status.has_ledger) return `Team ${this.team} has no ledger yet: nothing was written for it so far.`;
    if (!status.as_of) return "The log is empty: no event was written so far.";
    const age = formatAge(Date.now() - toMillis(status.as_of));
    if (!status.reconciled_through) return `No open orders in the log, whose last event is ${age} old. It was not reconciled with the broker yet, so orders placed elsewhere may be missing.`;
    return "No open orders. Ledger and broker agree.";
  }
}

/** @param {Row} row */
function prepare(row) {
  row.role = roleOf(row);
  return row;
}

/** @param {number} shown @param {number} all */
function count(shown, all) {
  return shown === all ? String(all) : `${shown} of ${all}`;
}

/** Sums for the eye: the exact ones are those of `GET summary`. @param {Row[]} trades */
function sumUp(trades) {
  /** @type {Map<string, {fills: number, bought: number, sold: number, slippage: number, requested: number, slippage_fills: number}>} */
  const sums = new Map();
  for (const trade of trades) {
    const symbol = trade.symbol ?? "—";
    const sum = sums.get(symbol) ?? { fills: 0, bought: 0, sold: 0, slippage: 0, requested: 0, slippage_fills: 0 };
    sums.set(symbol, sum);
    const quantity = Number(trade.quantity);
    const one = trade.kind === "reversal" ? -1 : 1;
    sum.fills += one;
    if (trade.side === "buy") sum.bought += quantity;
    else sum.sold += quantity;
    if (trade.requested_price) {
      const worse = Number(trade.execution_price) - Number(trade.requested_price);
      sum.slippage += (trade.side === "buy" ? worse : -worse) * quantity;
      sum.requested += Number(trade.requested_price) * quantity;
      sum.slippage_fills += one;
    }
  }
  const text = (/** @type {number} */ value, /** @type {number} */ places) => String(Number(value.toFixed(places)));
  return [...sums].map(([symbol, sum]) => ({
    symbol, fills: sum.fills, bought: text(sum.bought, 9), sold: text(sum.sold, 9), net: text(sum.bought - sum.sold, 9),
    slippage: sum.slippage.toFixed(2), slippage_fills: sum.slippage_fills,
    slippage_bps: sum.requested ? ((sum.slippage * 10_000) / Math.abs(sum.requested)).toFixed(1) : null,
  }));
}
