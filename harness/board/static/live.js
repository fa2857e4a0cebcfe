// The talk with the server: each answer is asked for again every two seconds while the page is looked
// at, and drawn again only if it changed.

import { ago, make } from "./dom.js";

const EVERY = 2000;
const LATE = 3 * EVERY;

const contact = document.getElementById("contact");
let heard = null;
let failed = false;

/** Seconds since `beat` (of the epoch) by the server's clock. */
export class Clock {
  static ahead = 0;
  static since(beat) {
    return beat === null || beat === undefined ? null : Math.max(0, (Date.now() + Clock.ahead) / 1000 - beat);
  }
}

/** Asks for `url()` again and again and gives what is new to `show`. */
export function follow(url, show, problem) {
  let tag = null;
  const ask = async () => {
    if (document.hidden && tag !== null) return;
    const asked = url();
    if (asked === null) return;
    try {
      const response = await fetch(asked, { cache: "no-cache", headers: { Accept: "application/json" } });
      const date = Date.parse(response.headers.get("date"));
      if (Math.abs(date - Date.now()) > 2000) Clock.ahead = date - Date.now();
      [heard, failed] = [Date.now(), false];
      const found = `${asked} ${response.headers.get("etag")}`;
      if (found !== tag) {
        const value = await response.json();
        tag = found;
        if (response.ok) await show(value);
        else problem(value.error);
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // what fetch rejects with when nobody answers
      failed = true;
    }
    tell();
  };
  const again = async () => {
    await ask();
    setTimeout(again, EVERY);
  };
  again();
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  return ask;
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
