// The talk with the server: each answer is asked for again every two seconds while the page is looked
// at, and drawn again only if it changed.

import { ago, make } from "./dom.js";

const EVERY = 2000;
const EVERY_REFUSED = 10000;
const LATE = 3 * EVERY;

const contact = document.getElementById("contact");
let heard = null;
let failed = false;

let ahead = 0; // of the server's clock before this one's, in milliseconds

function setClock(date) {
  if (Math.abs(date - Date.now()) > 2000) ahead = date - Date.now(); // it counts in whole seconds
}

/** Seconds since `time` (of the epoch) by the server's clock. */
export function since(time) {
  return Math.max(0, (Date.now() + ahead) / 1000 - time);
}

/**
 * Asks for `url()` again and again and gives what is new to `show`, or every time if `ticks`: for what
 * depends on the clock too.  `problem` is told what the server refuses.
 */
export function follow(url, show, problem = () => {}, { ticks = false } = {}) {
  let tag = null;
  let last = null;
  let refused = false;
  const ask = async () => {
    const asked = url();
    if (asked === null || (document.hidden && tag !== null)) return;
    const answer = await get(asked, tag);
    if (answer === null || asked !== url()) return; // nobody answers, or something else is wanted by now
    refused = !answer.ok;
    if (answer.tag !== tag) [tag, last] = [answer.tag, answer.value];
    else if (!ticks) return;
    await (refused ? problem(last.error) : show(last));
  };
  const again = async () => {
    try {
      await ask();
    } finally {
      setTimeout(again, refused ? EVERY_REFUSED : EVERY);
    }
  };
  again();
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  return ask;
}

/** What the server says; null if nothing.  Without a value when it is that of `tag`. */
async function get(address, tag) {
  try {
    const response = await fetch(address, { cache: "no-cache" });
    const found = `${address} ${response.headers.get("etag")}`;
    const value = found === tag ? null : await response.json();
    setClock(Date.parse(response.headers.get("date")));
    [heard, failed] = [Date.now(), false];
    return { ok: response.ok, tag: found, value };
  } catch {
    failed = true;
    return null;
  } finally {
    tell();
  }
}

function tell() {
  const silent = heard === null ? Infinity : Date.now() - heard;
  const lost = failed || silent > LATE;
  contact.dataset.lost = lost && !document.hidden;
  contact.textContent = lost ? `no answer${heard === null ? "" : `; last heard ${ago(silent / 1000)}`}` : "live";
}
setInterval(() => heard !== null && tell(), 1000);

/** Says where this is; `places` are [words, address]. */
export function trail(...places) {
  const steps = [["Board", "/"], ...places];
  document.title = [...steps].reverse().map(([words]) => words).join(" \u00b7 ");
  const links = steps.map(([words, address], i) =>
    i === steps.length - 1 ? make("span", { "aria-current": "page" }, words) : make("a", { href: address }, words));
  document.getElementById("trail").replaceChildren(...links);
}

export const sweepAddress = (name) => `/sweep/${encodeURIComponent(name)}`;
export const runAddress = (key, from) => `/run/${encodeURIComponent(key)}${from ? `?sweep=${encodeURIComponent(from)}` : ""}`;
