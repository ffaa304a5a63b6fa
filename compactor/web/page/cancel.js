/** Cancel one order or all of them, after a question that names paper or real money. */

import { Api } from "./api.js";
import { get, make, setText } from "./format.js";
import { describeOrder } from "./orders.js";

/** @typedef {import("./format.js").Row} Row */
const LISTED_MAX = 12;

/** Ask; true if the answer is yes. @param {Row[]} rows @param {string} trading @param {string} team */
export function confirmCancel(rows, trading, team) {
  const dialog = get("confirm", HTMLDialogElement);
  const one = rows.length === 1 ? rows[0] : undefined;
  setText(get("confirm-title", HTMLElement), one ? "Cancel this order?" : `Cancel all ${rows.length} open orders of ${team}?`);
  const kind = get("confirm-kind", HTMLElement);
  setText(kind, trading === "paper" ? "Paper trading" : `Live: ${trading}`);
  kind.classList.toggle("real", trading !== "paper");
  setText(get("confirm-what", HTMLElement), one ? describeOrder(one) : "");
  const items = one ? [] : rows.slice(0, LISTED_MAX).map((row) => make("li", "", describeOrder(row)));
  if (!one && rows.length > LISTED_MAX) items.push(make("li", "dim", `and ${rows.length - LISTED_MAX} more`));
  get("confirm-list", HTMLElement).replaceChildren(...items);
  setText(get("confirm-yes", HTMLButtonElement), one ? "Cancel the order" : `Cancel all ${rows.length}`);
  dialog.returnValue = "keep";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Ask the broker; returns what went wrong, one text an order. @param {Api} api @param {string} team @param {Row[]} rows */
export async function cancelOrders(api, team, rows) {
  /** @type {string[]} */
  const problems = [];
  const waiting = [...rows];
  const work = async () => {
    for (let row = waiting.shift(); row; row = waiting.shift()) {
      try {
        await api.get(Api.team(team, `orders/${encodeURIComponent(row.order_id)}`), { method: "DELETE" });
      } catch (error) {
        problems.push(`${describeOrder(row)}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  };
  await Promise.all([work(), work(), work()]);
  return problems;
}

/** Legs go with their parent: those whose parent is open too are left out. @param {Row[]} rows */
export function withoutLegs(rows) {
  const ids = new Set(rows.map((row) => row.order_id));
  return rows.filter((row) => !row.parent_order_id || !ids.has(row.parent_order_id));
}
