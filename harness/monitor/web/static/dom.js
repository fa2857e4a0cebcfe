// What the pages are built with.  Everything that comes from a file is set as text, never as markup.

/** An element; `properties` are attributes, or listeners when they are functions. */
export function make(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Replaces what is in `node`, unless it was made of the same `value` before. */
export function refill(node, value, build) {
  const text = JSON.stringify(value);
  if (node.dataset.shown === text) return;
  node.dataset.shown = text;
  node.replaceChildren(...[build(value)].flat().filter((child) => child !== null && child !== undefined));
}

/** A table whose rows stay the same elements while their items change, so that nothing jumps. */
export class Table {
  /**
   * `columns`: {name, words, title, className}, and of an item cell() -> children, value() to sort
   * by, and shown(): what the children depend on.
   */
  constructor({ columns, key, caption }) {
    this.key = key;
    this.rows = new Map();
    this.body = make("tbody");
    this.head = make("thead");
    this.items = [];
    this.sorted = null;
    this.node = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, make("table", {}, this.head, this.body));
    this.setColumns(columns);
  }

  setColumns(columns) {
    this.columns = columns;
    this.rows.clear();
    this.head.replaceChildren(make("tr", {}, ...columns.map((column) => this.headOf(column))));
  }

  headOf(column) {
    const button = make("button", { type: "button", title: column.title, click: () => this.sortBy(column) }, column.words);
    return make("th", { scope: "col", class: column.className, "aria-sort": "none" }, button);
  }

  sortBy(column) {
    const down = this.sorted?.name === column.name && !this.sorted.down;
    this.sorted = { name: column.name, down };
    [...this.head.rows[0].cells].forEach((cell, i) => {
      const own = this.columns[i].name === column.name;
      cell.setAttribute("aria-sort", own ? (down ? "descending" : "ascending") : "none");
    });
    this.show(this.items);
  }

  show(items) {
    this.items = items;
    const rows = this.inOrder(items).map((item) => this.row(item));
    const same = rows.length === this.body.rows.length && rows.every((row, i) => row === this.body.rows[i]);
    if (!same) this.body.replaceChildren(...rows);
  }

  inOrder(items) {
    const column = this.sorted && this.columns.find((one) => one.name === this.sorted.name);
    if (!column) return items;
    const sign = this.sorted.down ? -1 : 1;
    const missing = (value) => value === null || value === undefined || value === "";
    return [...items].sort((a, b) => {
      const [first, second] = [column.value(a), column.value(b)];
      if (missing(first) || missing(second)) return missing(first) - missing(second);
      if (typeof first === "number") return sign * (first - second);
      return sign * String(first).localeCompare(String(second), "en", { numeric: true });
    });
  }

  row(item) {
    const key = this.key(item);
    let row = this.rows.get(key);
    if (!row) {
      row = make("tr", { "data-key": key }, ...this.columns.map((column, i) => make(i ? "td" : "th", { class: column.className, scope: i ? null : "row", "data-words": column.words })));
      this.rows.set(key, row);
    }
    this.columns.forEach((column, i) => {
      refill(row.cells[i], column.shown(item), () => column.cell(item));
      row.cells[i].toggleAttribute("data-none", row.cells[i].textContent === dash);
    });
    return row;
  }
}

// ---- words

export const dash = "\u2013";

/** 12 s, 12 min, 3.5 h, 2.1 days. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return dash;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

export const count = (value) => (value === null || value === undefined ? dash : Math.round(value).toLocaleString("en"));
export const percent = (share, digits = 0) => (share === null || share === undefined ? dash : `${(100 * share).toFixed(digits)}%`);
export const fixed = (value, digits = 3) => (value === null || value === undefined ? dash : value.toFixed(digits));
export const ago = (seconds) => (seconds < 3 ? "now" : `${duration(seconds)} ago`);
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

export function hours(found) {
  const words = (value) => (value < 0.01 ? "< 0.01" : value < 10 ? value.toPrecision(2) : count(value));
  const parts = Object.entries(found).map(([name, value]) => `${words(value)} ${name}`);
  return parts.join(", ") || dash;
}

/** A value of a metric in its unit. */
export const scaled = (value, metric) => (value === null || value === undefined ? dash : (value * metric.scale).toFixed(metric.unit === "%" ? 1 : 3));

// ---- pieces that several pages have

/** The states, those that ask for attention first, and what they mean. */
export const STATES = {
  running: "somebody holds it and it says how far it is",
  failed: "it stopped at an error, and says at which",
  dead: "its job left the queue before the run began",
  stale: "its last word was that it runs, and nobody holds it any more; the sweep's command goes on with it",
  HELD: "the scheduler keeps it back",
  interrupted: "it was asked to stop and kept its state; the sweep's command goes on with it",
  cancelled: "somebody called it off",
  pruned: "a search stopped it early",
  starting: "the scheduler has started its job",
  queued: "it waits in the scheduler's queue",
  new: "not begun",
  done: "its result is on file",
};
export const byState = (a, b) => Object.keys(STATES).indexOf(a.state) - Object.keys(STATES).indexOf(b.state);

/** How a run stands, in words. */
export function stateOf(run) {
  const words = run.state === "running" && run.words !== "running" ? `running: ${run.words}` : run.words;
  return make("span", { class: "state", "data-state": run.state, title: STATES[run.state] }, words.replaceAll("_", " "));
}

/** `3 running`, `2 failed (diverged 1, killed 1)`, ...: the states in words. */
export function stateWords(summary) {
  return Object.entries(summary.states).map(([state, n]) => {
    const classes = Object.entries(summary.failures).map(([name, times]) => `${name.replaceAll("_", " ")} ${times}`);
    const words = state === "failed" ? `${n} failed (${classes.join(", ")})` : `${count(n)} ${state}`;
    return make("span", { class: "state", "data-state": state, title: STATES[state] }, words);
  });
}

/** A bar with a part for each state. */
export function stateBar(summary) {
  const order = ["done", "running", ...Object.keys(summary.states)].filter((state, i, all) => summary.states[state] && all.indexOf(state) === i);
  const parts = order.map((state) => {
    const part = make("span", { "data-state": state, title: `${summary.states[state]} ${state}` });
    part.style.flexGrow = summary.states[state];
    return part;
  });
  return make("div", { class: "bar", role: "img", "aria-label": `${summary.states.done ?? 0} of ${summary.runs} done` }, ...parts);
}

/** A bar of how much of one run is done. */
export function shareBar(share, state) {
  const part = make("span", { "data-state": state });
  part.style.flexGrow = share;
  const rest = make("span", { class: "rest" });
  rest.style.flexGrow = 1 - share;
  return make("div", { class: "bar", role: "img", "aria-label": percent(share) }, part, rest);
}

/** Numbers with their names, side by side. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== dash);
  return make("dl", { class: "facts" }, ...shown.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

/** Names and values below each other; a tree is folded out into dotted names. */
export function listing(tree) {
  const flat = (value, path) => {
    if (value === null || typeof value !== "object") return [[path, value]];
    if (Array.isArray(value) && value.every((item) => item === null || typeof item !== "object")) return [[path, value.join(", ")]];
    return Object.entries(value).flatMap(([name, part]) => flat(part, path ? `${path}.${name}` : name));
  };
  const pairs = flat(tree, "").filter(([, value]) => value !== null && value !== "");
  return make("dl", { class: "listing" }, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
}

export function fold(title, ...content) {
  return make("details", {}, make("summary", {}, title), ...content);
}
