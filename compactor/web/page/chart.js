/** The chart: net quantity by symbol over the day, or the fills of one symbol; drawn by uPlot. */

import { make, setText, toMillis, toNumber } from "./format.js";

/** @typedef {import("./format.js").Row} Row */
/** @type {any} */
const Plot = /** @type {any} */ (window).uPlot;
const SERIES_MAX = 8;
const HEIGHT = 190;

export class DayChart {
  /** @param {HTMLElement} place @param {HTMLElement} note @param {HTMLSelectElement} choice @param {() => string} zone */
  constructor(place, note, choice, zone) {
    this.place = place;
    this.note = note;
    this.choice = choice;
    this.zone = zone;
    /** @type {any} */
    this.plot = null;
    this.shape = "";
    /** @type {Row[]} */
    this.trades = [];
    choice.addEventListener("change", () => this.show(this.trades));
    new ResizeObserver(() => this.plot?.setSize({ width: this.width(), height: HEIGHT })).observe(place);
  }

  width() {
    return Math.max(240, this.place.clientWidth);
  }

  /** Draw it anew with other colours. */
  restyle() {
    this.shape = "";
    this.show(this.trades);
  }

  /** @param {Row[]} trades oldest first */
  show(trades) {
    this.trades = trades;
    const symbols = bySize(trades);
    this.offer(symbols);
    this.place.hidden = !trades.length;
    if (this.choice.parentElement) this.choice.parentElement.hidden = !trades.length;
    if (!trades.length) {
      setText(this.note, "Nothing to draw yet: no trade today.");
      return;
    }
    const one = this.choice.value;
    const drawn = one ? [one] : symbols.slice(0, SERIES_MAX);
    const data = one ? fillsOf(trades, one) : netOf(trades, drawn);
    const left = symbols.length - drawn.length;
    setText(this.note, one ? `Price of each fill of ${one}, and its net quantity (right).` : `Net quantity since the day began${left > 0 ? `; ${left} more symbols are in the list` : ""}.`);
    this.place.setAttribute("aria-label", one ? `Fills of ${one} today` : `Net quantity today of ${drawn.join(", ")}`);
    const shape = JSON.stringify([one, drawn, this.zone()]);
    if (this.plot && shape === this.shape) {
      this.plot.setData(data);
      return;
    }
    this.shape = shape;
    this.plot?.destroy();
    this.plot = new Plot(this.options(one, drawn), data, this.place);
  }

  /** @param {string[]} symbols */
  offer(symbols) {
    const wanted = ["", ...[...symbols].sort()];
    if (wanted.join("\n") === [...this.choice.options].map((one) => one.value).join("\n")) return;
    const before = this.choice.value;
    this.choice.replaceChildren(
      ...wanted.map((symbol) => {
        const option = make("option", "", symbol || "all symbols");
        option.value = symbol;
        return option;
      }),
    );
    this.choice.value = wanted.includes(before) ? before : "";
  }

  /** @param {string} one @param {string[]} drawn */
  options(one, drawn) {
    const style = getComputedStyle(this.place);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui", size: 52 };
    const zone = this.zone();
    const stepped = Plot.paths.stepped({ align: 1 });
    const series = one
      ? [
          { label: "bought", stroke: colour("--buy"), paths: () => null, points: { show: true, size: 6, fill: colour("--buy") } },
          { label: "sold", stroke: colour("--sell"), paths: () => null, points: { show: true, size: 6, fill: colour("--sell") } },
          { label: "net", scale: "net", stroke: colour("--dim"), width: 1, paths: stepped, points: { show: false } },
        ]
      : drawn.map((symbol, index) => ({ label: symbol, stroke: colour(`--series-${index + 1}`), width: 1.5, paths: stepped, points: { show: false } }));
    return {
      width: this.width(),
      height: HEIGHT,
      legend: { live: false },
      cursor: { drag: { x: false, y: false } },
      tzDate: (/** @type {number} */ at) => (zone === "local" ? new Date(at * 1000) : Plot.tzDate(new Date(at * 1000), zone)),
      scales: { x: { time: true } },
      series: [{}, ...series],
      axes: [
        { ...axis, size: 30, space: 72, values: [[3600, "{HH}:{mm}", null, null, null, null, null, null, 1], [60, "{HH}:{mm}", null, null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1]] },
        axis,
        ...(one ? [{ ...axis, scale: "net", side: 1, grid: { show: false } }] : []),
      ],
    };
  }
}

/** Times with some room before and behind, so that a single fill is a step too. @param {number[]} times */
function widen(times) {
  const first = times[0] ?? 0;
  const last = times[times.length - 1] ?? 0;
  const room = Math.max(60, (last - first) * 0.02);
  return [first - room, ...times, last + room];
}

/** Symbols, those with most fills first. @param {Row[]} trades */
function bySize(trades) {
  /** @type {Map<string, number>} */
  const sizes = new Map();
  for (const trade of trades) sizes.set(trade.symbol || "—", (sizes.get(trade.symbol || "—") ?? 0) + 1);
  return [...sizes].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([symbol]) => symbol);
}

/** @param {Row} trade */
function signed(trade) {
  const quantity = toNumber(trade.quantity);
  return trade.side === "buy" ? quantity : -quantity;
}

/** @param {Row[]} trades @param {string[]} symbols */
function netOf(trades, symbols) {
  const net = new Map(symbols.map((symbol) => [symbol, 0]));
  const times = /** @type {number[]} */ ([]);
  const lines = symbols.map(() => /** @type {number[]} */ ([]));
  for (const trade of trades) {
    const symbol = trade.symbol || "—";
    if (net.has(symbol)) net.set(symbol, (net.get(symbol) ?? 0) + signed(trade));
    times.push(toMillis(trade.timestamp) / 1000);
    for (const [index, one] of symbols.entries()) lines[index]?.push(net.get(one) ?? 0);
  }
  return [widen(times), ...lines.map((line) => [0, ...line, line[line.length - 1] ?? 0])];
}

/** @param {Row[]} trades @param {string} symbol */
function fillsOf(trades, symbol) {
  let net = 0;
  const own = trades.filter((trade) => (trade.symbol || "—") === symbol);
  const price = (/** @type {Row} */ trade, /** @type {boolean} */ isBuy) => ((trade.side === "buy") === isBuy ? toNumber(trade.execution_price) : null);
  const nets = own.map((trade) => (net += signed(trade)));
  return [
    widen(own.map((trade) => toMillis(trade.timestamp) / 1000)),
    [null, ...own.map((trade) => price(trade, true)), null],
    [null, ...own.map((trade) => price(trade, false)), null],
    [0, ...nets, net],
  ];
}
