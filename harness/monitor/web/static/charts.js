// Curves, drawn by Plotly, which is fetched from the board itself when a page has the first one.

import { make } from "./dom.js";

/** Colours that are told apart by colour-blind readers. */
const COLOURS = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9", "#b59f00", "#7a3e9d"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const LEGEND_MOST = 12;
const LEGEND_LONGEST = 40;
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

let loading = null;

/** What the page's own sheet gives a name, by the scheme of the screen. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Curves that are drawn already follow the screen. */
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const plot of document.querySelectorAll(".plot")) if (plot.data) window.Plotly.relayout(plot, ground());
});

function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = make("script", { src: "/assets/plotly.min.js" });
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => reject(new Error("plotly.min.js could not be had")));
    document.head.append(script);
  });
  return loading;
}

/** Plotly reads some markup in names; this leaves it none. */
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** A colour for each of `names` in their order, and a line style when colours come round again. */
export function styles(names) {
  return new Map(names.map((name, i) => [name, { color: COLOURS[i % COLOURS.length], dash: DASHES[Math.floor(i / COLOURS.length) % DASHES.length] }]));
}

/** A picture whose curves can change: `show([{name, group, x, y, color, dash}], options)`. */
export class Chart {
  constructor(title) {
    this.title = title;
    this.plot = make("div", { class: "plot" });
    this.node = make("figure", {}, title ? make("figcaption", {}, title) : null, this.plot);
    this.shown = null;
  }

  async show(curves, { log = false, axis = "" } = {}) {
    const text = JSON.stringify([curves, log, axis]);
    if (text === this.shown) return;
    this.shown = text;
    const Plotly = await plotly();
    if (text !== this.shown) return; // newer curves came meanwhile
    await Plotly.react(this.plot, traces(curves), layout(curves, log, axis), { responsive: true, displaylogo: false, displayModeBar: false });
    this.plot.dataset.points = curves.reduce((sum, curve) => sum + curve.x.length, 0);
  }

  /** Makes one curve stand out, or none. */
  point(key) {
    if (!this.plot.data || this.pointed === key) return;
    this.pointed = key;
    const opacity = this.plot.data.map((trace) => (!key || trace.meta === key ? 0.9 : 0.12));
    window.Plotly.restyle(this.plot, { opacity });
  }
}

function traces(curves) {
  const groups = new Set();
  return curves.map((curve) => {
    const group = curve.group ?? curve.name;
    const first = !groups.has(group);
    groups.add(group);
    return {
      type: "scatter",
      mode: curve.x.length < 2 || curve.points ? "lines+markers" : "lines",
      name: plain(curve.name),
      meta: curve.key,
      legendgroup: group,
      showlegend: first,
      x: curve.x,
      y: curve.y,
      opacity: 0.9,
      connectgaps: false,
      line: { color: curve.color, dash: curve.dash, width: 1.6 },
      marker: { size: 5 },
      hovertemplate: "%{y:.4g} at %{x:,} samples<extra>%{fullData.name}" + (curve.seed === undefined ? "" : `, seed ${Number(curve.seed)}`) + "</extra>",
    };
  });
}

/** Whether the names of the curves stand below them; else a curve that is pointed at says its own. */
export function hasLegend(groups) {
  return groups.size > 1 && groups.size <= LEGEND_MOST && [...groups].every((name) => name.length <= LEGEND_LONGEST);
}

/** The parts of a layout that depend on the scheme, by their paths. */
function ground() {
  const found = { "font.color": colour("--ink"), paper_bgcolor: colour("--ground"), plot_bgcolor: colour("--ground") };
  for (const axis of ["xaxis", "yaxis"]) {
    found[`${axis}.gridcolor`] = colour("--rest");
    found[`${axis}.linecolor`] = found[`${axis}.tickcolor`] = colour("--calm");
    found[`${axis}.title.font.color`] = colour("--faint");
  }
  return found;
}

/** `layout` with the values of `paths` in place. */
function painted(layout, paths) {
  for (const [path, value] of Object.entries(paths)) {
    const names = path.split(".");
    const last = names.pop();
    names.reduce((place, name) => (place[name] ??= {}), layout)[last] = value;
  }
  return layout;
}

function layout(curves, log, axis) {
  const groups = new Set(curves.map((curve) => curve.group ?? curve.name));
  const legend = hasLegend(groups);
  const common = { zeroline: false, ticks: "outside", ticklen: 4, automargin: true };
  const drawn = {
    uirevision: `${log}`,
    height: legend ? 330 : 280,
    margin: { l: 48, r: 12, t: 8, b: 36 },
    font: { size: 12, family: FONT },
    hovermode: "closest",
    hoverlabel: { namelength: -1, font: { family: FONT, size: 12 } },
    showlegend: legend,
    legend: { orientation: "h", y: -0.22, yanchor: "top", x: 0, font: { size: 11 } },
    xaxis: { ...common, title: { text: "samples seen", standoff: 6, font: { size: 11 } }, rangemode: "tozero", tickformat: "~s" },
    yaxis: { ...common, type: log ? "log" : "linear", title: { text: plain(axis), standoff: 4, font: { size: 11 } } },
  };
  return painted(drawn, ground());
}
