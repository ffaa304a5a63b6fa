/** How current the page is, in words for each source: the broker's stream, the last reconcile, and the page itself. */

import { formatAge, get, setText, toMillis } from "./format.js";

/** @typedef {import("./format.js").Row} Row */
const PAGE_LATE_MS = 14_000;

export class Freshness {
  constructor() {
    this.list = get("freshness", HTMLElement);
    this.stream = get("fresh-stream", HTMLElement);
    this.reconcile = get("fresh-reconcile", HTMLElement);
    this.page = get("fresh-page", HTMLElement);
    this.late = get("late", HTMLElement);
    /** @type {Row | null} */
    this.status = null;
    this.skew = 0;
    this.isOpen = false;
    this.reason = "";
    this.closedAt = 0;
  }

  /** @param {Row} status */
  take(status) {
    this.status = status;
    this.skew = toMillis(status.server_time) - Date.now();
  }

  /** @param {boolean} isOpen @param {string} reason */
  connect(isOpen, reason) {
    if (this.isOpen && !isOpen) this.closedAt = Date.now();
    this.isOpen = isOpen;
    this.reason = reason;
  }

  /** Draw it, as of now. @param {number} heard when the server last said something */
  tick(heard) {
    const status = this.status;
    this.list.hidden = !status;
    if (!status) return;
    const now = Date.now() + this.skew;
    const silent = Date.now() - heard;
    const isPageLate = !this.isOpen ? Date.now() - Math.max(this.closedAt, heard) > 2000 || silent > PAGE_LATE_MS : silent > PAGE_LATE_MS;
    say(this.page, isPageLate, isPageLate ? `Page: no word for ${formatAge(silent)}` : "Page: live");
    this.tickStream(status, now);
    this.tickReconcile(status, now);
    const reasons = [...(isPageLate ? [`no word from the server for ${formatAge(silent)}${this.reason ? ` (${this.reason})` : ""}`] : []), ...status.reasons];
    const isLate = reasons.length > 0;
    document.documentElement.dataset.late = String(isLate);
    this.late.hidden = !isLate;
    const shown = isPageLate ? formatAge(silent) : status.as_of ? formatAge(now - toMillis(status.as_of)) : "";
    const age = isPageLate ? `What you see is ${shown} old.` : status.as_of ? `The last event is ${shown} old.` : "";
    setText(this.late, isLate ? `Not current: ${reasons.join("; ")}. ${age}` : "");
  }

  /** @param {Row} status @param {number} now */
  tickStream(status, now) {
    const streams = /** @type {Row[]} */ (status.streams);
    const down = streams.filter((one) => !one.connected);
    if (!status.daemon_running || !streams.length) {
      say(this.stream, false, status.daemon_running ? "Stream: none, files only" : "Stream: no daemon", "none");
      return;
    }
    if (down.length) {
      const since = Math.max(...down.map((one) => now - toMillis(one.since)));
      say(this.stream, true, `Stream: down${Number.isFinite(since) ? ` for ${formatAge(since)}` : ""}`);
      return;
    }
    const last = Math.max(...streams.map((one) => toMillis(one.last_message_at) || 0));
    say(this.stream, false, `Stream: connected${last ? `, last message ${formatAge(now - last)} ago` : ""}`);
  }

  /** @param {Row} status @param {number} now */
  tickReconcile(status, now) {
    const isLate = status.reasons.some((/** @type {string} */ reason) => reason.includes("reconcile"));
    if (!status.reconciled_through) say(this.reconcile, isLate, "Reconcile: not yet", "none");
    else say(this.reconcile, isLate, `Reconciled ${formatAge(now - toMillis(status.reconciled_through))} ago`);
  }
}

/** @param {HTMLElement} element @param {boolean} isLate @param {string} text @param {string} [state] */
function say(element, isLate, text, state = "good") {
  setText(element, text);
  const wanted = isLate ? "late" : state;
  if (element.dataset.state !== wanted) element.dataset.state = wanted;
}
