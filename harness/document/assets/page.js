
"use strict";
// Sorts tables, filters long ones, copies one as LaTeX, and shows the runs behind a number.  Everything foreign is set
// as text, never as markup.
(() => {
  const make = (name, text, attributes = {}) => {
    const node = document.createElement(name);
    if (text !== undefined && text !== null) node.textContent = String(text);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };

  // ---- sorting

  const worth = (cell) => {
    const text = cell.dataset.value ?? cell.textContent.trim();
    const found = /^[(]?([+\u2212-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)(?![\w.])/i.exec(text);
    return { number: found ? Number(found[1].replaceAll(",", "").replace("\u2212", "-")) : NaN, text };
  };
  const order = (a, b) => {
    const first = Number.isNaN(a.number), second = Number.isNaN(b.number);
    if (first !== second) return first ? 1 : -1;
    return first ? a.text.localeCompare(b.text, "en", { numeric: true }) : a.number - b.number;
  };
  const missing = (item) => Number.isNaN(item.worth.number) && /^(\u2014|$)/.test(item.worth.text);
  const sortBy = (table, head) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const column = head.cellIndex;
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => row.className !== "group");
      const items = rows.map((row) => ({ row, worth: worth(row.cells[column]) }));
      items.sort((a, b) => {
        if (missing(a) !== missing(b)) return missing(a) ? 1 : -1; // what is missing stays below
        return (down ? -1 : 1) * order(a.worth, b.worth);
      });
      body.append(...items.map((item) => item.row));
    }
    for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  };
  for (const table of document.querySelectorAll("main table")) {
    for (const head of table.tHead.rows[table.tHead.rows.length - 1].cells) {
      const button = make("button", null, { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sortBy(table, head));
    }
    if ([...table.tBodies].reduce((sum, body) => sum + body.rows.length, 0) > 12) addFilter(table);
  }

  function addFilter(table) {
    const label = make("label", "Filter rows: ");
    const field = make("input", null, { type: "search" });
    label.append(field);
    const box = make("div", null, { class: "filter" });
    box.append(label);
    table.parentElement.before(box);
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase();
      for (const row of table.querySelectorAll("tbody tr:not(.group)")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  }

  // ---- a table to take along

  for (const button of document.querySelectorAll("button.copy")) {
    const source = button.parentElement.nextElementSibling.content.textContent;
    const said = button.textContent;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source);
      } catch { // a page that may not reach the clipboard by itself
        const field = make("textarea", source);
        document.body.append(field);
        field.select();
        document.execCommand("copy");
        field.remove();
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = said; }, 1500);
    });
  }

  // ---- the runs behind a number

  const dialog = document.getElementById("detail");
  if (!dialog) return;
  let data = null;
  const show = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const facts = (pairs) => {
    const list = make("dl");
    for (const [name, value] of pairs) {
      if (value === null || value === undefined || value === "") continue;
      list.append(make("dt", name), make("dd", show(value)));
    }
    return list;
  };
  const fold = (title, content, open = false) => {
    const box = make("details");
    box.open = open;
    box.append(make("summary", title), content);
    return box;
  };

  const curve = (columns, name) => {
    const width = 620, height = 180, left = 62, bottom = 24, space = "http://www.w3.org/2000/svg";
    const drawn = (kind, attributes, text) => {
      const node = document.createElementNS(space, kind);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text !== undefined) node.textContent = text;
      return node;
    };
    const points = columns.samples_seen.map((x, i) => [x, columns[name][i]]).filter((p) => p[0] !== null && p[1] !== null);
    const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
    const span = (values) => [Math.min(...values), Math.max(...values)];
    const [x0, x1] = span(xs), [y0, y1] = span(ys);
    const x = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - 12);
    const y = (v) => height - bottom - ((v - y0) / (y1 - y0 || 1)) * (height - bottom - 12);
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${name} against samples seen` });
    svg.append(drawn("path", { class: "axis", d: `M${left} 8V${height - bottom}H${width - 8}` }));
    svg.append(drawn("path", { class: "line", d: points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("") }));
    const tick = (v) => Number(v.toPrecision(3)).toLocaleString("en");
    svg.append(drawn("text", { x: left - 6, y: 16, "text-anchor": "end" }, tick(y1)));
    svg.append(drawn("text", { x: left - 6, y: height - bottom, "text-anchor": "end" }, tick(y0)));
    svg.append(drawn("text", { x: left, y: height - 6 }, tick(x0)));
    svg.append(drawn("text", { x: width - 12, y: height - 6, "text-anchor": "end" }, `${tick(x1)} samples`));
    return svg;
  };

  const oneRun = (key) => {
    const run = data.runs[key];
    const box = make("section");
    if (!run) return box;
    box.append(make("h3", `${run.label}, seed ${run.seed}`));
    box.append(facts([["run", run.place ?? `results/runs/${key}`], ["state", run.state], ["why there is no number", run.reason],
      ["attempts", run.attempts], ["log", run.log], ...Object.entries(data.pool[run.training])]));
    box.append(make("h4", "Configuration: what differs from the first run of this page"));
    const differs = Object.entries(run.set);
    box.append(differs.length ? facts(differs) : make("p", "Nothing: this is the first run."));
    box.append(fold("The whole configuration", facts(Object.entries({ ...data.base, ...run.set }))));
    const values = data.metrics.map((name, i) => [name, run.values[i]]).filter((pair) => pair[1] !== null);
    if (values.length) box.append(fold("Every metric, as recorded", facts(values)));
    const names = Object.keys(run.curve).filter((name) => !["samples_seen", "step"].includes(name));
    if (run.curve.samples_seen && names.length) {
      const charts = make("div");
      for (const name of names) charts.append(make("h4", name), curve(run.curve, name));
      box.append(fold("Training curves", charts, true));
    }
    run.tries.forEach(([shared, own], i) => {
      const { versions, ...rest } = data.pool[shared];
      const list = facts([...Object.entries(own), ...Object.entries(rest), ...Object.entries(versions ?? {})]);
      box.append(fold(`Provenance of attempt ${i + 1}`, list));
    });
    const files = facts(Object.entries(run.files));
    box.append(fold("Files read, and the start of their SHA-256", files));
    return box;
  };

  const open = (keys) => {
    data ??= JSON.parse(document.getElementById("data").textContent);
    const body = document.getElementById("detail-body");
    body.replaceChildren(make("h2", keys.length === 1 ? "The run behind this number" : `The ${keys.length} runs behind this number`, { id: "detail-h" }));
    body.append(...keys.map(oneRun));
    dialog.showModal();
    dialog.scrollTop = 0;
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#run-"]');
    if (!link) return;
    const keys = (link.closest("[data-runs]")?.dataset.runs ?? link.hash.slice("#run-".length)).split(" ");
    event.preventDefault();
    open(keys);
  });
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
})();
