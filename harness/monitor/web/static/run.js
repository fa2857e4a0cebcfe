// One run: how it goes on, its curves, what it prints, its result, and where it comes from.

import { follow, runAddress, since, sweepAddress, trail } from "./live.js";
import { Chart, styles } from "./charts.js";
import { ago, count, dash, duration, facts, fixed, fold, hours, listing, make, percent, refill, scaled, shareBar, stateOf } from "./dom.js";

/** Which numbers of the training log go into one picture; what is in none has one of its own. */
const PICTURES = [
  ["Loss", (name) => name === "loss"],
  ["Loss terms", (name) => name.startsWith("terms/")],
  ["Loss terms, weighted", (name) => name.startsWith("weighted/")],
  ["Learning rate", (name) => name === "lr"],
  ["Logit scale", (name) => name === "logit_scale"],
  ["Gradient norm", (name) => name === "grad_norm"],
  ["Softened mass of the labels", (name) => name === "soft_label_mass"],
  ["Samples a second", (name) => name === "samples_per_second"],
  ["Share of the time waiting for pictures", (name) => name === "data_wait"],
];

export function run(main, key, from) {
  trail(...(from ? [[from, sweepAddress(from)]] : []), [key]);
  const parts = Object.fromEntries(["title", "state", "numbers", "problems", "result", "about"].map((name) => [name, make("section")]));
  const curves = curvesOf(key);
  const log = logOf(key);
  main.replaceChildren(parts.title, parts.state, parts.problems, parts.numbers, curves, log.node, parts.result, parts.about);
  follow(
    () => `/api/runs/${encodeURIComponent(key)}`,
    (found) => {
      trail(...[from ?? found.sweeps[0]].filter(Boolean).map((name) => [name, sweepAddress(name)]), [`${found.label}, seed ${found.seed}`]);
      refill(parts.title, [found.label, found.seed, found.directory, found.sweeps], () => title(found));
      refill(parts.state, [found.state, found.words, found.share, found.error, found.trace], () => state(found));
      refill(parts.problems, found.problems, (lines) => lines.map((line) => make("p", { class: "warning" }, line)));
      refill(parts.numbers, [found, Math.floor(since(found.beat ?? 0) / 5)], () => numbers(found));
      refill(parts.result, found.result, (result) => result && results(result));
      refill(parts.about, [found.config, found.attempts, found.ends, found.stop, found.point, found.parents], () => about(found));
      log.files(found.logs);
    },
    (error) => main.replaceChildren(make("h1", {}, key), make("p", { class: "problem" }, error)),
    { ticks: true },
  );
}

function title(found) {
  const links = found.sweeps.flatMap((name, i) => [i ? ", " : "", make("a", { href: sweepAddress(name) }, name)]);
  return [
    make("h1", {}, found.label, make("span", { class: "seed" }, ` seed ${found.seed}`)),
    make("p", { class: "sub" }, make("code", {}, found.directory), ...(links.length ? [" \u00b7 of ", ...links] : [])),
  ];
}

function state(found) {
  return [
    make("p", { class: "headline" }, stateOf(found), ` ${percent(found.share)}`),
    shareBar(found.share, found.state),
    found.error ? make("p", { class: "problem" }, found.error) : null,
    found.trace ? fold("Traceback", make("pre", { tabindex: 0 }, found.trace)) : null,
  ];
}

function numbers(found) {
  return facts([
    ["samples", `${count(found.seen)} of ${count(found.samples)}`],
    ["speed", found.rate === null ? dash : `${count(found.rate)} samples/s`],
    ["data wait", percent(found.wait)],
    ["loss", fixed(found.loss)],
    ["left", duration(found.left)],
    ["device time so far", hours(found.hours)],
    ["on", found.node],
    ["last sign", found.beat ? ago(since(found.beat)) : dash],
  ]);
}

// ---- curves

function curvesOf(key) {
  const grid = make("div", { class: "grid" });
  const node = make("section", { hidden: true }, make("h2", {}, "Curves"), grid);
  const charts = new Map();
  const draw = async (found) => {
    const pictures = [...picturesOf(found.training), ...evaluations(found.evaluations)];
    node.hidden = !pictures.length;
    for (const { words, x, series } of pictures) {
      if (!charts.has(words)) {
        charts.set(words, new Chart(words));
        grid.append(charts.get(words).node);
      }
      const names = Object.keys(series).sort();
      const style = styles(names);
      await charts.get(words).show(names.map((name) => ({ name: name.split("/").slice(1).join("/") || name, key: name, x, y: series[name], points: x.length < 8, ...style.get(name) })));
    }
  };
  follow(() => `/api/runs/${encodeURIComponent(key)}/curves`, draw);
  return node;
}

function picturesOf({ x, series }) {
  const left = new Set(Object.keys(series));
  const take = (words, belongs) => {
    const names = [...left].filter(belongs);
    names.forEach((name) => left.delete(name));
    return { words, x, series: Object.fromEntries(names.map((name) => [name, series[name]])) };
  };
  const known = PICTURES.map(([words, belongs]) => take(words, belongs));
  const rest = [...left].sort().map((name) => take(name, (other) => other === name));
  return [...known, ...rest].filter((picture) => Object.keys(picture.series).length && x.length);
}

/** What was evaluated while it trained: recalls together, accuracies together, others alone. */
function evaluations({ x, series }) {
  const names = Object.keys(series).filter((name) => name !== "seconds");
  const groups = new Map();
  for (const name of names) {
    const words = /recall/.test(name) ? "Evaluated while it trained: recalls" : "Evaluated while it trained";
    groups.set(words, [...(groups.get(words) ?? []), name]);
  }
  return [...groups].map(([words, group]) => ({ words, x, series: Object.fromEntries(group.map((name) => [name, series[name]])) }));
}

// ---- log

function logOf(key) {
  const select = make("select", { "aria-label": "Which log" });
  const stay = make("input", { type: "checkbox", checked: true });
  const text = make("pre", { class: "log", tabindex: 0, "aria-label": "End of the log" });
  const where = make("p", { class: "hint" });
  const node = make("section", { hidden: true }, make("div", { class: "tools" }, make("h2", {}, "Log"), select, make("label", {}, stay, " keep at the end")), text, where);
  let chosen = null;
  const ask = follow(
    () => (node.hidden ? null : `/api/runs/${encodeURIComponent(key)}/log${chosen ? `?file=${encodeURIComponent(chosen)}` : ""}`),
    (found) => {
      text.textContent = found.text || "(nothing was printed)";
      where.textContent = found.file === null ? "" : `${found.cut ? "the end of " : ""}${found.file}, ${count(found.bytes)} bytes`;
      if (stay.checked) text.scrollTop = text.scrollHeight;
    },
    (error) => { text.textContent = error; },
  );
  select.addEventListener("change", () => { chosen = select.value; ask(); });
  const files = (names) => {
    const begins = node.hidden && names.length;
    node.hidden = !names.length;
    refill(select, names, () => names.map((name) => make("option", { value: name }, name)));
    select.value = chosen ?? names.at(-1) ?? "";
    select.hidden = names.length < 2;
    if (begins) ask();
  };
  return { node, files };
}

// ---- result and provenance

function results(result) {
  const rows = result.metrics.map((metric) => make("tr", {},
    make("th", { scope: "row", title: metric.name }, metric.words),
    make("td", { class: "number" }, metric.value === null ? dash : `${scaled(metric.value, metric)} ${metric.unit}`),
    make("td", { class: "number" }, metric.chance === null ? dash : scaled(metric.chance, metric)),
    make("td", { class: "number" }, count(metric.n)),
    make("td", {}, metric.reason ?? "")));
  const head = make("tr", {}, ...["metric", "value", "chance", "n", ""].map((words, i) => make("th", { scope: "col", class: i && i < 4 ? "number" : null }, words)));
  return [
    make("h2", {}, "Result"),
    make("div", { class: "scroll short", tabindex: 0, role: "region", "aria-label": "Metrics" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))),
    fold("Training", listing(result.training)),
    fold("Cost", listing(result.cost)),
  ];
}

function about(found) {
  const attempts = found.attempts ?? [];
  return [
    make("h2", {}, "Provenance"),
    facts(Object.entries(found.point).map(([path, value]) => [path, String(value)])),
    ...found.parents.map((key) => make("p", {}, "It begins with, or imitates, run ", make("a", { href: runAddress(key) }, key), ".")),
    found.stop ? make("p", {}, `Asked to stop: ${found.stop}.`) : null,
    fold("Configuration", listing(found.config)),
    ...attempts.map((attempt, i) => fold(`Attempt ${i + 1}: ${attempt.time ?? ""}${attempt.host ? ` on ${attempt.host}` : ""}`, listing(attempt))).reverse(),
    ...(found.ends ?? []).map((end) => fold(`Attempt ${end.attempt} was cut short: ${end.class}`, listing(end))),
  ];
}
