/** All teams, for an administrator: open orders and freshness, looked at again every few seconds. */

import { Api } from "./api.js";
import { formatAge, formatDecimal, get, make, setText, toMillis } from "./format.js";
import { LiveTable } from "./table.js";

/** @typedef {import("./format.js").Row} Row */
const EVERY_MS = 5000;

export class Overview {
  /** @param {{open: (team: string) => void, onTeams: (teams: string[]) => void, onError: (error: unknown) => void, onHeard: () => void}} to */
  constructor(to) {
    this.to = to;
    this.timer = 0;
    this.heard = 0;
    /** @type {Api | null} */
    this.api = null;
    this.table = new LiveTable(get("overview-table", HTMLTableElement), {
      name: "teams", caption: "Teams", key: (row) => row.team_id, sort: "team", descending: false,
      row_class: (row) => (row.stale ? "stale" : ""),
      columns: [
        { id: "team", title: "Team", always: true, text: (row) => row.team_id, draw: (cell, row) => this.drawTeam(cell, row) },
        { id: "open", title: "Open orders", number: true, text: (row) => formatDecimal(String(row.open_orders_count)), sort: (row) => row.open_orders_count },
        { id: "event", title: "Last event", number: true, text: (row) => (row.as_of ? `${formatAge(Date.now() - toMillis(row.as_of))} ago` : "none"), sort: (row) => -toMillis(row.as_of) },
        { id: "reconciled", title: "Reconciled", number: true, text: (row) => (row.reconciled_through ? `${formatAge(Date.now() - toMillis(row.reconciled_through))} ago` : "not yet"), sort: (row) => -toMillis(row.reconciled_through) },
        { id: "state", title: "State", always: true, text: (row) => (row.stale ? row.reasons.join("; ") : "current"), class_of: (row) => (row.stale ? "state late" : "state") },
      ],
    });
  }

  /** @param {HTMLTableCellElement} cell @param {Row} row */
  drawTeam(cell, row) {
    if (cell.firstChild) return;
    const button = make("button", "link", row.team_id);
    button.type = "button";
    button.dataset.move = "team";
    button.addEventListener("click", () => this.to.open(row.team_id));
    cell.append(button);
  }

  /** @param {Api} api */
  async show(api) {
    this.api = api;
    get("overview", HTMLElement).hidden = false;
    await this.load();
  }

  hide() {
    clearTimeout(this.timer);
    this.timer = 0;
    get("overview", HTMLElement).hidden = true;
  }

  async load() {
    clearTimeout(this.timer);
    if (!this.api) return;
    try {
      const { body } = await this.api.get("teams");
      this.heard = Date.now();
      this.to.onHeard();
      this.to.onTeams(body.teams.map((/** @type {Row} */ row) => row.team_id));
      const shown = this.table.show(body.teams);
      setText(get("overview-count", HTMLElement), String(shown));
      get("overview-empty", HTMLElement).hidden = shown > 0;
      get("overview-table", HTMLElement).hidden = shown === 0;
      setText(get("overview-empty", HTMLElement), "This key opens every team, and there is none yet: no ledger was made so far.");
    } catch (error) {
      this.to.onError(error);
    }
    if (!get("overview", HTMLElement).hidden) this.timer = setTimeout(() => void this.load(), EVERY_MS);
  }

  tick() {
    if (get("overview", HTMLElement).hidden) return;
    this.table.tick("event");
    this.table.tick("reconciled");
  }
}
