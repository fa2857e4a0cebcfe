// One sweep: how it goes on, a number of all its training logs, and its runs.

import { follow, runAddress, since, trail } from "./live.js";
import { Chart, hasLegend, styles } from "./charts.js";
import { STATES, Table, ago, byState, count, dash, duration, facts, fixed, hours, make, percent, plural, refill, scaled, shareBar, stateBar, stateOf, stateWords } from "./dom.js";

export function sweep(main, name) {
  trail([name]);
  const parts = { question: make("p", { class: "sub" }), report: make("p", { class: "report" }), failures: make("section", { "aria-label": "Failures" }), summary: make("section", { "aria-label": "How it stands" }), notes: make("div"), about: make("div") };
  const curves = curvesOf(name);
  const runs = runsOf(name, curves.chart);
  const points = pointsOf(name);
  main.replaceChildren(make("h1", {}, name), parts.question, parts.report, parts.notes, parts.summary, parts.failures, points.node, curves.node, runs.node, parts.about);
  follow(
    () => `/api/sweeps/${encodeURIComponent(name)}`,
    (found) => {
      refill(parts.question, found.question, (text) => text);
      refill(parts.notes, found.notes, (lines) => lines.map((line) => make("p", { class: "warning" }, line)));
      refill(parts.summary, [found.summary, found.search], ([summary]) => [
        stateBar(summary),
        make("p", { class: "states" }, ...stateWords(summary)),
        facts([
          ...searchFacts(found.search),
          ["speed", summary.rate === null ? dash : `${count(summary.rate)} samples/s`],
          ["left at this pace", duration(summary.left)],
          ["device time so far", hours(summary.hours)],
        ]),
      ]);
      refill(parts.report, [found.report, Math.floor(since(found.report.made ?? 0) / 60)], ([report]) => reportOf(name, report));
      refill(parts.failures, found.failures, (failures) => failures.length ? failuresOf(name, failures) : []);
      points.show(found);
      runs.show(found);
      refill(parts.about, [found.file, found.command], ([file, command]) => [
        make("h2", {}, "Where it comes from"),
        make("dl", { class: "listing" }, make("dt", {}, "sweep file"), make("dd", {}, file ?? dash), make("dt", {}, "command"), make("dd", {}, make("code", {}, command))),
      ]);
    },
    (error) => main.replaceChildren(make("h1", {}, name), make("p", { class: "problem" }, error)),
    { ticks: true },
  );
}

function reportOf(name, report) {
  if (report.made === null) return ["No report yet: ", make("code", {}, report.command), " makes it of the runs that are done."];
  return [make("a", { href: `/report/${encodeURIComponent(name)}/report.html` }, "Report"), ` made ${ago(since(report.made))}`];
}

// ---- failures by cause

function failuresOf(name, failures) {
  const cause = (one) => {
    const runs = one.runs.flatMap((run, i) => [i ? ", " : "", make("a", { href: runAddress(run.key, name) }, `${run.label} seed ${run.seed}`)]);
    const more = one.count - one.runs.length;
    return make("li", {}, make("span", { class: "state", "data-state": "failed" }, `${plural(one.count, "run")}, ${one.failure.replaceAll("_", " ")}`), make("p", { class: "error", title: one.error ?? "" }, one.error ?? ""), make("p", { class: "hint" }, ...runs, more ? ` and ${count(more)} more` : ""));
  };
  return [make("h2", {}, "Failures by cause"), make("ul", { class: "causes" }, ...failures.map(cause))];
}

// ---- points

/** Means over the seeds that are done, which say how many those are while some are not. */
function pointsOf(sweepName) {
  const table = new Table({ columns: pointColumns(sweepName, []), key: (point) => point.label, caption: "Points" });
  const node = make("section", { class: "points", hidden: true }, make("div", { class: "tools" }, make("h2", {}, "Points"), make("p", { class: "hint" }, "mean ± standard deviation over the seeds that are done")), table.node);
  let known = null;
  const show = (found) => {
    node.hidden = !found.points.some((point) => point.values.some((value) => value));
    const names = found.metrics.map((metric) => metric.name).join();
    if (names !== known) {
      known = names;
      table.setColumns(pointColumns(sweepName, found.metrics));
    }
    table.show(found.points);
  };
  return { node, show };
}

function pointColumns(sweepName, metrics) {
  const mark = (seed) => make("a", { class: "state", "data-state": seed.state, title: `seed ${seed.seed}: ${seed.state}`, "aria-label": `seed ${seed.seed}: ${seed.state}`, href: runAddress(seed.key, sweepName) });
  const words = (value, metric, seeds) => {
    if (!value) return dash;
    const spread = value.sd === null ? "" : ` ± ${scaled(value.sd, metric)}`;
    return `${scaled(value.mean, metric)}${spread}${value.seeds < seeds ? ` (${value.seeds} of ${seeds})` : ""}`;
  };
  return [
    { name: "point", words: "point", className: "run", value: (point) => point.label, shown: (point) => point.label, cell: (point) => point.label },
    { name: "seeds", words: "seeds", className: "marks", value: (point) => point.share, shown: (point) => point.seeds, cell: (point) => point.seeds.map(mark) },
    { name: "share", words: "done", className: "number", value: (point) => point.share, shown: (point) => point.share, cell: (point) => percent(point.share) },
    ...metrics.map((metric, i) => ({ name: metric.name, words: `${metric.words}${metric.unit === "%" ? "" : ` (${metric.unit})`}`, title: metric.name, className: "number", value: (point) => point.values[i]?.mean ?? null, shown: (point) => point.values[i], cell: (point) => words(point.values[i], metric, point.seeds.length) })),
  ];
}

function searchFacts(search) {
  if (!search) return [];
  const best = search.best.map((value, i) => `${scaled(value, search.objectives[i])}${search.objectives[i].unit === "%" ? " %" : ` ${search.objectives[i].unit}`}`);
  const names = search.objectives.map((goal) => goal.words).join(", ");
  return [
    ["trials over", search.wanted === null ? count(search.over) : `${count(search.over)} of ${count(search.wanted)}`],
    [`best ${names}`, best.length ? make("span", {}, `${best.join(", ")} `, make("a", { href: runAddress(search.run) }, `trial ${search.trial}`)) : dash],
  ];
}

// ---- curves

function curvesOf(name) {
  const chart = new Chart(null);
  const select = make("select", { "aria-label": "What is drawn" }, make("option", { value: "loss" }, "loss"));
  const log = make("input", { type: "checkbox" });
  const words = make("p", { class: "hint" });
  const node = make("section", { class: "curves", hidden: true }, make("div", { class: "tools" }, make("h2", {}, "Training curves"), select, make("label", {}, log, " log scale")), chart.node, words);
  let found = null;
  const draw = () => {
    if (!found) return;
    node.hidden = !found.names.length;
    refill(select, found.names, (names) => names.map((one) => make("option", { value: one }, one)));
    select.value = found.series;
    const style = styles([...new Set(found.curves.map((curve) => curve.label))].sort((a, b) => a.localeCompare(b, "en", { numeric: true })));
    const drawn = found.curves.map((curve) => ({ ...curve, ...style.get(curve.label), name: curve.label, group: curve.label, points: curve.x.length < 8 }));
    drawn.sort((a, b) => a.label.localeCompare(b.label, "en", { numeric: true }) || a.seed - b.seed);
    const legend = hasLegend(new Set(drawn.map((curve) => curve.label)));
    refill(words, [drawn.length, found.left_out, legend], ([shown, left]) => `${plural(shown, "run")}${left ? `; ${count(left)} that ended earlier are left out` : ""}. Seeds of a point share its colour.${legend || shown < 2 ? "" : " A curve that is pointed at says which it is, and so does the line of a run."}`);
    return chart.show(drawn, { log: log.checked, axis: found.series });
  };
  const ask = follow(() => `/api/sweeps/${encodeURIComponent(name)}/curves?series=${encodeURIComponent(select.value)}`, (value) => {
    found = value;
    return draw();
  });
  select.addEventListener("change", ask);
  log.addEventListener("change", draw);
  return { node, chart };
}

// ---- runs

/** Columns of numbers that only a run that goes on has. */
const PASSING = new Set(["rate", "wait", "left"]);
const LONG = 40;

function runsOf(sweepName, chart) {
  const table = new Table({ columns: columnsFor(sweepName, []), key: (run) => run.key, caption: "Runs" });
  const chips = make("div", { class: "chips", role: "group", "aria-label": "Show runs that are" });
  const field = make("input", { type: "search", placeholder: "filter runs", "aria-label": "Filter runs" });
  const none = make("p", { class: "empty", hidden: true }, "No run is like that.");
  let [runs, chosen, known] = [[], null, null];
  const draw = () => {
    const wanted = field.value.toLowerCase();
    const shown = runs.filter((run) => (!chosen || run.state === chosen) && `${run.label} ${run.seed} ${run.key} ${run.words} ${run.error ?? ""}`.toLowerCase().includes(wanted));
    table.show(shown);
    none.hidden = shown.length > 0 || !runs.length;
    for (const chip of chips.children) chip.setAttribute("aria-pressed", (chip.dataset.state ?? null) === chosen || (!chosen && chip.dataset.state === "all"));
  };
  field.addEventListener("input", draw);
  table.body.addEventListener("pointerover", (event) => chart.point(event.target.closest("tr")?.dataset.key));
  table.body.addEventListener("pointerleave", () => chart.point(null));
  const show = (found) => {
    const columns = columnsFor(sweepName, found.metrics).filter((column) => !PASSING.has(column.name) || found.runs.some((run) => column.value(run) !== null));
    const names = columns.map((column) => column.name).join();
    if (names !== known) {
      known = names;
      table.setColumns(columns);
    }
    runs = [...found.runs].sort(byState);
    refill(chips, found.summary.states, (states) => [["all", found.runs.length], ...Object.entries(states)].map(([state, n]) =>
      make("button", { type: "button", "data-state": state, title: STATES[state], "aria-pressed": false, click: () => { chosen = state === "all" || chosen === state ? null : state; draw(); } }, `${state} ${count(n)}`)));
    draw();
  };
  const node = make("section", {}, make("div", { class: "tools" }, make("h2", {}, "Runs"), chips, field), table.node, none);
  return { node, show };
}

function columnsFor(sweepName, metrics) {
  const number = (name, words, value, cell, more = {}) => ({ name, words, className: "number", value, shown: value, cell: (run) => cell(value(run)), ...more });
  return [
    { name: "run", words: "run", className: "run", value: (run) => run.label, shown: (run) => run.label, cell: (run) => make("a", { href: runAddress(run.key, sweepName), "data-long": run.label.length > LONG }, run.label) },
    number("seed", "seed", (run) => run.seed, String),
    { name: "state", words: "state", className: "short-words", value: (run) => run.words, shown: (run) => [run.state, run.words, run.error], cell: (run) => [
      stateOf(run),
      run.error ? make("p", { class: "error", title: run.error }, run.error) : null,
    ] },
    { name: "share", words: "done", className: "share", value: (run) => run.share, shown: (run) => [run.share, run.state], cell: (run) => [shareBar(run.share, run.state), make("span", {}, percent(run.share))] },
    number("rate", "samples/s", (run) => run.rate, count),
    number("wait", "data wait", (run) => run.wait, percent, { title: "share of the time spent waiting for pictures" }),
    number("loss", "loss", (run) => run.loss, fixed),
    number("left", "left", (run) => run.left, duration),
    { name: "beat", words: "last sign", className: "number", title: "when it last wrote how it stands", value: (run) => run.beat, shown: (run) => [run.beat, run.state === "running" ? Math.floor(since(run.beat ?? 0) / 2) : Math.floor(since(run.beat ?? 0) / 60)], cell: (run) => (run.beat ? ago(since(run.beat)) : dash) },
    ...metrics.map((metric, i) => ({ name: metric.name, words: `${metric.words}${metric.unit === "%" ? "" : ` (${metric.unit})`}`, title: metric.name, className: "number", value: (run) => run.values[i], shown: (run) => run.values[i], cell: (run) => scaled(run.values[i], metric) })),
    { name: "key", words: "key", value: (run) => run.key, shown: (run) => run.key, cell: (run) => make("code", {}, run.key) },
  ];
}
