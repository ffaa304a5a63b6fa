/** Texts for people: decimals as they came, times in the chosen zone, ages. Nothing here computes with money. */

/** @typedef {Record<string, any>} Row */

/** A decimal text with its thousands grouped; its digits are those of the file. @param {string | null | undefined} text */
export function formatDecimal(text) {
  if (text === null || text === undefined || text === "") return "";
  const [whole = "", fraction] = String(text).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

/** A price, with the places of a cent at least, so that the points of a column stand below each other. @param {string | null | undefined} text */
export function formatPrice(text) {
  const shown = formatDecimal(text);
  const places = shown.includes(".") ? shown.length - shown.indexOf(".") - 1 : 0;
  return shown === "" || places >= 2 ? shown : `${shown}${places ? "" : "."}${"0".repeat(2 - places)}`;
}

/** A decimal as a number, for order and position on the screen only. @param {string | null | undefined} text */
export function toNumber(text) {
  return text === null || text === undefined || text === "" ? Number.NaN : Number(text);
}

/** @param {string | null | undefined} text */
export function toMillis(text) {
  return text ? Date.parse(text.replace(/(\.\d{3})\d+/, "$1")) : Number.NaN;
}

/** @type {Map<string, Intl.DateTimeFormat>} */
const formatters = new Map();

/** @param {string} zone @param {Intl.DateTimeFormatOptions} options */
function formatter(zone, options) {
  const name = zone + JSON.stringify(options);
  let found = formatters.get(name);
  if (!found) {
    found = new Intl.DateTimeFormat("en-GB", zone === "local" ? options : { ...options, timeZone: zone });
    formatters.set(name, found);
  }
  return found;
}

/** @param {number} at @param {string} zone */
function dayOf(at, zone) {
  return formatter(zone, { year: "numeric", month: "2-digit", day: "2-digit" }).format(at);
}

/** The time of day, with the date where it is another day. @param {string | null | undefined} text @param {string} zone */
export function formatTime(text, zone) {
  const at = toMillis(text);
  if (Number.isNaN(at)) return text ?? "";
  const time = formatter(zone, { hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(at);
  if (dayOf(at, zone) === dayOf(Date.now(), zone)) return time;
  return `${formatter(zone, { day: "2-digit", month: "short" }).format(at)} ${time}`;
}

/** The whole instant, for titles. @param {string | null | undefined} text @param {string} zone */
export function formatInstant(text, zone) {
  const at = toMillis(text);
  if (Number.isNaN(at)) return text ?? "";
  const name = zone === "local" ? "" : zone === "UTC" ? " UTC" : " New York";
  const day = dayOf(at, zone).split("/").reverse().join("-");
  return `${day} ${formatter(zone, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 }).format(at)}${name}`;
}

/** How long something took or has lasted, in one unit. @param {number} millis */
export function formatAge(millis) {
  if (Number.isNaN(millis)) return "";
  const seconds = Math.max(0, Math.floor(millis / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** A status in words. @param {string | null | undefined} status */
export function formatWords(status) {
  return (status ?? "").replaceAll("_", " ");
}

/** The instant at which the trading day began: 20:00 New York. @param {number} now */
export function tradingDayStart(now) {
  const parts = formatter("America/New_York", { hour: "2-digit", minute: "2-digit", second: "2-digit" }).formatToParts(now);
  const part = (/** @type {string} */ type) => Number(parts.find((one) => one.type === type)?.value ?? 0);
  const since = ((part("hour") - 20 + 24) % 24) * 3600 + part("minute") * 60 + part("second");
  let start = Math.floor(now / 1000) * 1000 - since * 1000;
  // A change of the clocks lies between: an hour more or less.
  const hour = Number(formatter("America/New_York", { hour: "2-digit" }).format(start));
  if (hour !== 20) start += (hour === 19 ? 1 : -1) * 3600_000;
  return start;
}

/** An element with a class and a text. Text is data: it is never read as HTML.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name @param {string} [className] @param {string} [text] @returns {HTMLElementTagNameMap[Name]} */
export function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** An element of the page. @template {HTMLElement} Kind @param {string} id @param {new () => Kind} kind @returns {Kind} */
export function get(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}

/** Set a text only where it is another one, so that a selection in it stays. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
