/** The page: sign in, choose a team, and keep everything current. */

import { Api, Refusal } from "./api.js";
import { Desk } from "./desk.js";
import { formatTime, get, make, setText } from "./format.js";
import { Freshness } from "./freshness.js";
import { Overview } from "./overview.js";
import { StoryPanel } from "./story.js";

/** @typedef {import("./format.js").Row} Row */
const THEMES = ["system", "light", "dark"];

class Page {
  constructor() {
    this.api = new Api("");
    /** @type {Row | null} */
    this.access = null;
    this.team = "";
    this.zone = localStorage.getItem("zone") ?? "local";
    this.ticked = Date.now();
    this.freshness = new Freshness();
    this.story = new StoryPanel({ api: () => this.api, team: () => this.team, zone: () => this.zone, onChange: () => this.writeAddress() });
    this.desk = new Desk({
      zone: () => this.zone,
      open: (id) => void this.story.open(id),
      onStatus: (status) => this.takeStatus(status),
      onRefused: (refusal) => this.takeRefusal(refusal),
      onState: (isOpen, reason) => this.freshness.connect(isOpen, reason),
      onOrder: (id) => this.story.renew(id),
    });
    this.overview = new Overview({
      open: (team) => void this.chooseTeam(team),
      onTeams: (teams) => this.offerTeams(teams),
      onError: (error) => (error instanceof Refusal && error.status < 429 ? this.takeRefusal(error) : this.sayOverviewLate()),
      onHeard: () => (get("late", HTMLElement).hidden = true),
    });
    this.wire();
  }

  wire() {
    const zone = get("zone", HTMLSelectElement);
    zone.value = this.zone;
    zone.addEventListener("change", () => {
      this.zone = zone.value;
      localStorage.setItem("zone", this.zone);
      this.desk.draw();
      if (this.story.id) void this.story.load();
    });
    get("theme", HTMLButtonElement).addEventListener("click", () => this.turnTheme());
    get("sign-out", HTMLButtonElement).addEventListener("click", () => this.signOut("Enter the key of your team."));
    get("team-choice", HTMLSelectElement).addEventListener("change", (event) => void this.chooseTeam(/** @type {HTMLSelectElement} */ (event.target).value));
    get("sign-in", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.signIn(get("key", HTMLInputElement).value.trim(), get("remember", HTMLInputElement).checked);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
      event.preventDefault();
      get("orders-filter", HTMLInputElement).focus();
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.wakeUp();
    });
    window.addEventListener("online", () => this.wakeUp());
    window.addEventListener("hashchange", () => void this.readAddress());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.desk.chart.restyle());
    this.applyTheme(localStorage.getItem("theme") ?? "system");
    setInterval(() => this.tick(), 1000);
  }

  async start() {
    const address = new URLSearchParams(location.hash.slice(1));
    const given = address.get("key");
    if (given) {
      // It leaves the address bar at once, and was never sent as part of an address.
      address.delete("key");
      history.replaceState(null, "", `#${address}`);
    }
    const key = given ?? sessionStorage.getItem("key") ?? localStorage.getItem("key") ?? "";
    if (key || document.documentElement.dataset.open) await this.signIn(key, localStorage.getItem("key") === key && key !== "");
    else this.signOut("Enter the key of your team.");
  }

  /** @param {string} key @param {boolean} remember */
  async signIn(key, remember) {
    try {
      this.api = new Api(key);
      this.access = (await this.api.get("key")).body;
    } catch (error) {
      this.signOut(error instanceof Refusal ? sayRefusal(error) : "The server cannot be reached; try again.");
      return;
    }
    sessionStorage.setItem("key", key);
    if (remember) localStorage.setItem("key", key);
    get("sign-in", HTMLElement).hidden = true;
    get("sign-out", HTMLElement).hidden = key === "";
    await this.readAddress();
  }

  /** @param {string} reason */
  signOut(reason) {
    sessionStorage.removeItem("key");
    localStorage.removeItem("key");
    this.access = null;
    this.team = "";
    this.desk.close();
    this.desk.forget();
    this.overview.hide();
    this.freshness.status = null;
    this.freshness.list.hidden = true;
    for (const id of ["desk", "sign-out", "team-choice", "late", "trading", "story"]) get(id, HTMLElement).hidden = true;
    setText(get("team-name", HTMLElement), "compactor");
    get("team-name", HTMLElement).classList.remove("unseen");
    get("sign-in", HTMLElement).hidden = false;
    setText(get("sign-in-reason", HTMLElement), reason);
    get("key", HTMLInputElement).value = "";
    get("key", HTMLInputElement).focus();
    document.title = "Open orders";
  }

  /** @param {Refusal} refusal */
  takeRefusal(refusal) {
    this.signOut(sayRefusal(refusal));
  }

  // Which team, which order.

  async readAddress() {
    if (!this.access) return;
    const address = new URLSearchParams(location.hash.slice(1));
    const wanted = this.access.admin ? (address.get("team") ?? "") : String(this.access.team_id);
    const order = address.get("order") ?? "";
    if (wanted !== this.team || !wanted) await this.showTeam(wanted);
    if (order && order !== this.story.id && this.team) await this.story.open(order);
  }

  writeAddress() {
    const address = new URLSearchParams();
    if (this.team) address.set("team", this.team);
    if (this.story.id) address.set("order", this.story.id);
    const hash = address.size ? `#${address}` : location.pathname;
    if (hash !== location.hash) history.replaceState(null, "", hash);
  }

  /** @param {string} team */
  async chooseTeam(team) {
    if (this.story.id) this.story.close();
    await this.showTeam(team);
    this.writeAddress();
  }

  /** @param {string} team */
  async showTeam(team) {
    this.team = team;
    this.freshness.status = null;
    setText(get("team-name", HTMLElement), team || "All teams");
    document.title = team ? `${team}: open orders` : "All teams";
    get("desk", HTMLElement).hidden = !team;
    get("team-choice", HTMLSelectElement).value = team;
    if (!team) {
      this.desk.close();
      this.freshness.list.hidden = true;
      get("trading", HTMLElement).hidden = true;
      await this.overview.show(this.api);
      return;
    }
    this.overview.hide();
    try {
      await this.desk.show(this.api, team, Boolean(this.access?.read_only));
      if (this.access?.admin) await this.loadTeams();
    } catch (error) {
      if (error instanceof Refusal && error.status === 404 && this.access?.admin) await this.chooseTeam("");
      else if (error instanceof Refusal && error.status !== 429 && error.status < 500) this.takeRefusal(error);
      else setTimeout(() => this.team === team && void this.showTeam(team), 3000);
    }
  }

  async loadTeams() {
    const { body } = await this.api.get("teams");
    this.offerTeams(body.teams.map((/** @type {Row} */ row) => row.team_id));
  }

  /** @param {string[]} teams */
  offerTeams(teams) {
    const choice = get("team-choice", HTMLSelectElement);
    choice.hidden = false;
    get("team-name", HTMLElement).classList.add("unseen");
    const wanted = ["", ...teams];
    if (wanted.join("\n") !== [...choice.options].map((one) => one.value).join("\n")) {
      choice.replaceChildren(
        ...wanted.map((team) => {
          const option = make("option", "", team || "All teams");
          option.value = team;
          return option;
        }),
      );
    }
    choice.value = this.team;
  }

  // How current it is.

  /** @param {Row} status */
  takeStatus(status) {
    this.freshness.take(status);
    const badge = get("trading", HTMLElement);
    badge.hidden = !status.trading;
    setText(badge, status.trading?.replace("real money", "live") ?? "");
    badge.classList.toggle("real", Boolean(status.trading) && status.trading !== "paper");
    this.freshness.tick(this.desk.feed?.heard ?? Date.now());
  }

  sayOverviewLate() {
    const late = get("late", HTMLElement);
    late.hidden = false;
    setText(late, "Not current: the server cannot be reached.");
  }

  tick() {
    const now = Date.now();
    // Timers stood still: the machine slept.
    if (now - this.ticked > 5000) this.wakeUp();
    this.ticked = now;
    setText(get("clock", HTMLElement), formatTime(new Date(now).toISOString(), this.zone));
    if (this.team) {
      this.desk.tick();
      this.freshness.tick(this.desk.feed?.heard ?? now);
    } else {
      this.overview.tick();
    }
  }

  wakeUp() {
    if (this.team) this.desk.feed?.check(true);
    else if (this.access) void this.overview.load();
  }

  // Light and dark.

  turnTheme() {
    const now = document.documentElement.dataset.theme ?? "system";
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length] ?? "system";
    localStorage.setItem("theme", next);
    this.applyTheme(next);
  }

  /** @param {string} theme */
  applyTheme(theme) {
    document.documentElement.dataset.theme = theme;
    setText(get("theme", HTMLButtonElement), theme === "light" ? "Light" : theme === "dark" ? "Dark" : "Auto");
    get("theme", HTMLButtonElement).setAttribute("aria-label", `Colours: ${theme}`);
    this.desk?.chart.restyle();
  }
}

/** @param {Refusal} refusal */
function sayRefusal(refusal) {
  if (refusal.status === 401) return "This key is not known, or was revoked.";
  if (refusal.status === 403) return "This key sees no team.";
  return refusal.message;
}

void new Page().start();
