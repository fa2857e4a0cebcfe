// All sweeps of the root, a line each.

import { follow, since, sweepAddress, trail } from "./live.js";
import { Table, ago, count, dash, duration, facts, hours, make, refill, stateBar, stateWords } from "./dom.js";

const ATTENTION = ["running", "failed", "dead", "stale", "HELD"];

export function overview(main) {
  trail();
  const root = make("p", { class: "sub" });
  const totals = make("section", { "aria-label": "All sweeps" });
  const notes = make("div");
  const table = new Table({ columns, key: (sweep) => sweep.name, caption: "Sweeps" });
  table.node.classList.add("cards");
  const empty = make("p", { class: "empty", hidden: true }, "Nothing was launched under this root yet. What python -m harness.sweep launches appears here by itself.");
  main.replaceChildren(make("h1", {}, "Sweeps"), root, totals, notes, table.node, empty);
  follow(
    () => "/api/overview",
    (found) => {
      refill(root, found.root, (text) => text);
      refill(totals, found.sweeps.length ? found.all : null, (all) => all && summaryFacts(all, found.sweeps.length));
      refill(notes, found.notes, (lines) => lines.map((line) => make("p", { class: "warning" }, line)));
      table.node.hidden = !found.sweeps.length;
      empty.hidden = found.sweeps.length > 0;
      table.show([...found.sweeps].sort(byAttention));
    },
    (error) => main.replaceChildren(make("p", { class: "problem" }, error)),
    { ticks: true },
  );
}

function summaryFacts(all, sweeps) {
  const failed = Object.entries(all.failures).map(([name, n]) => `${n} ${name.replaceAll("_", " ")}`).join(", ");
  return facts([
    ["sweeps", count(sweeps)],
    ["runs done", `${count(all.states.done ?? 0)} of ${count(all.runs)}`],
    ["running", count(all.states.running ?? 0)],
    ["failed", failed || "0"],
    ["speed", all.rate === null ? dash : `${count(all.rate)} samples/s`],
    ["left at this pace", duration(all.left)],
    ["device time so far", hours(all.hours)],
  ]);
}

/** Those that go on first, then those that ask for attention, then the latest. */
function byAttention(a, b) {
  const rank = (sweep) => {
    if (sweep.problem) return 1;
    const found = ATTENTION.findIndex((state) => sweep.states[state]);
    return found < 0 ? ATTENTION.length : found;
  };
  return rank(a) - rank(b) || (b.beat ?? 0) - (a.beat ?? 0);
}

const columns = [
  {
    name: "name", words: "sweep", className: "wide", value: (sweep) => sweep.name, shown: (sweep) => [sweep.name, sweep.question, sweep.search],
    cell: (sweep) => [
      make("a", { href: sweepAddress(sweep.name), class: "name" }, sweep.name),
      sweep.search ? make("span", { class: "tag" }, "search") : null,
      sweep.question ? make("p", { class: "question" }, sweep.question) : null,
    ],
  },
  {
    name: "progress", words: "runs", className: "wide", value: (sweep) => (sweep.problem ? null : (sweep.states.done ?? 0) / sweep.runs),
    shown: (sweep) => [sweep.states, sweep.failures, sweep.problem],
    cell: (sweep) => (sweep.problem ? make("p", { class: "problem" }, sweep.problem) : [stateBar(sweep), make("p", { class: "states" }, ...stateWords(sweep))]),
  },
  { name: "rate", words: "samples/s", className: "number", value: (sweep) => sweep.rate, shown: (sweep) => sweep.rate, cell: (sweep) => count(sweep.rate) },
  { name: "left", words: "left", className: "number", title: "time left at the present pace", value: (sweep) => sweep.left, shown: (sweep) => sweep.left, cell: (sweep) => duration(sweep.left) },
  { name: "hours", words: "device time", className: "number", title: "of training and evaluation that the runs have; what a killed attempt lost is not in it", value: (sweep) => Object.values(sweep.hours ?? {})[0], shown: (sweep) => sweep.hours, cell: (sweep) => hours(sweep.hours ?? {}) },
  { name: "beat", words: "last sign", className: "number", title: "when a run last wrote how it stands", value: (sweep) => sweep.beat, shown: (sweep) => [sweep.beat, Math.floor(since(sweep.beat ?? 0) / 5)], cell: (sweep) => (sweep.beat ? ago(since(sweep.beat)) : dash) },
];

