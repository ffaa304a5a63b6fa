/** The story of an order: what happened, what each event changed, the broker's messages, and the orders around it. */

import { Api } from "./api.js";
import { formatDecimal, formatInstant, formatPrice, formatTime, formatWords, get, make, setText } from "./format.js";
import { describeOrder } from "./orders.js";

/** @typedef {import("./format.js").Row} Row */
const RELATIONS = /** @type {Record<string, string>} */ ({ replaces: "replaces", replaced_by: "was replaced by", parent: "belongs to", leg: "has the leg" });

/** When it was asked for here, by whom and why. @param {Row[] | undefined} intents @param {string} zone */
function sayIntent(intents, zone) {
  const first = intents?.find((one) => one.event === "submitting");
  return first ? [formatInstant(first.ts, zone), (first.tags ?? []).join(", "), first.note].filter(Boolean).join(" · ") : "";
}

export class StoryPanel {
  /** @param {{api: () => Api, team: () => string, zone: () => string, onChange: (id: string) => void}} to */
  constructor(to) {
    this.to = to;
    this.id = "";
    this.panel = get("story", HTMLElement);
    this.title = get("story-title", HTMLElement);
    this.body = get("story-body", HTMLElement);
    /** @type {Element | null} */
    this.from = null;
    this.timer = 0;
    get("story-close", HTMLButtonElement).addEventListener("click", () => this.close());
    get("story-link", HTMLButtonElement).addEventListener("click", (event) => this.copy(/** @type {HTMLButtonElement} */ (event.currentTarget)));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.id && !document.querySelector("dialog[open]")) this.close();
    });
  }

  /** @param {string} id */
  async open(id) {
    if (this.id !== id) {
      if (!this.id) this.from = document.activeElement;
      this.id = id;
      setText(this.title, "Order");
      this.body.replaceChildren(make("p", "dim", "Reading the log…"));
    }
    this.panel.hidden = false;
    this.panel.focus({ preventScroll: true });
    this.to.onChange(id);
    await this.load();
  }

  close() {
    this.id = "";
    this.panel.hidden = true;
    this.to.onChange("");
    if (this.from instanceof HTMLElement && this.from.isConnected) this.from.focus();
  }

  /** An event of this order came: read it again, soon. @param {string} id */
  renew(id) {
    if (id !== this.id) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.load(), 300);
  }

  async load() {
    const id = this.id;
    try {
      const { body } = await this.to.api().get(Api.team(this.to.team(), `orders/${encodeURIComponent(id)}/history`));
      if (id === this.id) this.show(body);
    } catch (error) {
      if (id === this.id) this.body.replaceChildren(make("p", "empty", error instanceof Error ? error.message : String(error)));
    }
  }

  /** @param {any} story */
  show(story) {
    const opened = new Set([...this.body.querySelectorAll("details[open]")].map((one) => /** @type {HTMLElement} */ (one).dataset.offset));
    const top = this.panel.scrollTop;
    setText(this.title, describeOrder(story.order));
    const parts = [this.facts(story)];
    if (story.chain?.length) parts.push(this.chain(story.chain));
    const list = make("ol", "timeline");
    for (const event of story.events) list.append(this.event(event, opened));
    for (const finding of story.unread ?? []) list.append(make("li", "finding", `Not applied: ${finding.kind}: ${finding.detail}`));
    parts.push(list);
    this.body.replaceChildren(...parts);
    this.panel.scrollTop = top;
  }

  /** @param {any} story */
  facts(story) {
    const { order } = story;
    const list = make("dl", "facts");
    /** @type {[string, string][]} */
    const facts = [
      ["Status", formatWords(order.status) + (story.open ? "" : " (ended)")],
      ["Filled", `${formatDecimal(order.filled_qty)}${order.quantity ? ` of ${formatDecimal(order.quantity)}` : ""}${order.filled_avg_price ? ` at ${formatPrice(order.filled_avg_price)}` : ""}`],
      ["Type", [formatWords(order.order_type), order.time_in_force, order.order_class].filter(Boolean).join(" · ")],
      ["Origin", story.origin === "submitted" ? "submitted here" : story.origin === "adopted" ? "adopted: the broker told of it first" : ""],
      ["Asked for", sayIntent(story.intents, this.to.zone())],
      ["Created", formatInstant(order.created_at, this.to.zone())],
      ["Order id", story.order_id],
      ["Client id", order.client_order_id ?? ""],
    ];
    for (const [name, value] of facts) {
      if (value) list.append(make("dt", "", name), make("dd", "", value));
    }
    return list;
  }

  /** @param {any[]} chain */
  chain(chain) {
    const list = make("ul", "chain");
    for (const one of chain) {
      const item = make("li", "", `${RELATIONS[one.relation] ?? one.relation} `);
      const button = make("button", "link", [one.symbol, formatDecimal(one.quantity), formatWords(one.status)].filter(Boolean).join(" ") || one.order_id);
      button.type = "button";
      button.title = one.order_id;
      button.addEventListener("click", () => void this.open(one.order_id));
      item.append(button);
      list.append(item);
    }
    return list;
  }

  /** @param {any} event @param {Set<string | undefined>} opened */
  event(event, opened) {
    const item = make("li", event.repeated ? "repeated" : "");
    const head = make("p", "when");
    const at = make("time", "", formatTime(event.ts, this.to.zone()));
    at.title = formatInstant(event.ts, this.to.zone());
    head.append(at, make("strong", "", formatWords(event.event)));
    if (event.status_after && event.status_after !== event.status_before) head.append(make("span", "status", formatWords(event.status_after)));
    head.append(make("span", "dim", [event.source, event.repeated ? "told before" : "", event.reason].filter(Boolean).join(" · ")));
    item.append(head);
    const changes = Object.entries(event.changes ?? {}).map(([name, [before, after]]) => {
      const text = (/** @type {any} */ value) => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));
      return `${formatWords(name)} ${text(before) ? `${text(before)} → ` : ""}${text(after)}`;
    });
    if (changes.length) item.append(make("p", "changes", changes.join(", ")));
    for (const trade of event.trades ?? []) item.append(make("p", "trade", `${trade.kind} ${trade.side ?? ""} ${formatDecimal(trade.quantity)} at ${formatPrice(trade.execution_price)}`));
    for (const finding of event.findings ?? []) item.append(make("p", "finding", `${formatWords(finding.kind)}: ${finding.detail}`));
    const raw = event.raw ?? event.line;
    if (raw !== undefined && raw !== null) {
      const details = make("details");
      details.dataset.offset = `${event.offset}-${event.leg ?? 0}`;
      details.open = opened.has(details.dataset.offset);
      details.append(make("summary", "", event.raw ? "The broker's message" : "The line"), make("pre", "", typeof raw === "string" ? raw : JSON.stringify(raw, null, 1)));
      item.append(details);
    }
    return item;
  }

  /** @param {HTMLButtonElement} button */
  async copy(button) {
    try {
      await navigator.clipboard.writeText(location.href);
      setText(button, "Copied");
    } catch {
      setText(button, "Copy it from the address bar");
    }
    setTimeout(() => setText(button, "Copy link"), 2000);
  }
}
