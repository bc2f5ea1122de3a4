/* The table: a heading of groups, a heading of columns, a row for each model. */

function drawTable() {
  const at = document.activeElement?.closest?.("[data-at]")?.dataset.at;
  const columns = shownColumns();
  const rows = shownRows();
  const grid = el("table", { role: "grid", class: "board", "aria-describedby": "count" },
    head(columns), el("tbody", {}, rows.map((row) => bodyRow(row, columns))));
  byId("table").replaceChildren(grid);
  if (state.shade) shade(grid, rows, columns);
  const all = board().rows.length;
  const number = rows.length === all ? `${all} rows` : `${rows.length} of ${all} rows`;
  byId("count").textContent = rows.length ? `${number} · click a value for where it comes from and the samples behind it`
    : "No row is left by these filters";
  roving(grid, at);
}

function head(columns) {
  const groups = [];
  for (const column of columns) {
    if (groups.at(-1)?.[0] === column.group) groups.at(-1)[1] += 1;
    else groups.push([column.group, 1]);
  }
  return el("thead", {},
    el("tr", { class: "groups" }, el("td", { role: "presentation" }),
      groups.map(([group, span]) => el("th", { scope: "colgroup", colspan: String(span) }, el("span", {}, group)))),
    el("tr", {}, headCell(null), columns.map(headCell)));
}

function headCell(column) {
  const sorted = ariaSort(column);
  const arrow = sorted === "none" ? "" : sorted === "ascending" ? "▴" : "▾";
  const node = el("th", { scope: "col", role: "columnheader", "aria-sort": sorted, tabindex: "-1",
    "data-at": `head\n${column?.key ?? "label"}`, class: column?.average ? "average" : null,
    on: { click: () => sortBy(column?.key ?? "label") } },
  el("span", { class: "title" }, column ? `${column.title} ${column.arrow}` : "model"),
  el("span", { class: "sorted", "aria-hidden": "true" }, arrow),
  column?.n && el("span", { class: "n" }, `n = ${column.n}`));
  tipFor(node, () => headTip(column));
  return node;
}

function bodyRow(row, columns) {
  const kind = [row.merge ? "merge" : "reference", row.collapsed.length && "collapsed",
    row.label === board().baseline && "baseline"].filter(Boolean).join(" ");
  return el("tr", { class: kind }, rowHead(row), columns.map((column) => bodyCell(row, column)));
}

function rowHead(row) {
  const dot = el("span", { class: "dot", "aria-hidden": "true" });
  if (row.method) dot.style.background = row.colour;
  const node = el("th", { scope: "row", role: "rowheader", tabindex: "-1", "data-at": `${row.label}\nlabel`,
    on: { click: () => openPanel(row, null) } },
  el("div", { class: "name" }, dot, el("span", {}, el("bdi", { class: "label" }, visible(row.label)),
    row.stale && el("sup", { title: "older code or another lock" }, "†"),
    row.imported && el("sup", { title: "imported" }, "‡"),
    row.label === board().baseline && [" ", el("span", { class: "tag" }, "baseline")])));
  tipFor(node, () => rowTip(row));
  return node;
}

function bodyCell(row, column) {
  const cell = row.cells[column.key];
  const given = { role: "gridcell", tabindex: "-1", "data-at": `${row.label}\n${column.key}` };
  if (!cell) return el("td", { ...given, class: "lacking", "aria-label": "not run" }, "–", versus({}));
  const node = el("td", { ...given, class: column.average ? "average" : "open",
    on: column.average ? {} : { click: () => openPanel(row, column) } },
  value(row, cell), marks(cell), spreadOf(cell), column.average ? null : versus(cell), paperOf(cell));
  tipFor(node, () => cellTip(row, column, cell));
  return node;
}

function value(row, cell) {
  if (row.collapsed.length) return el("em", { class: "value" }, `${cell.text}*`);
  return el(cell.best ? "strong" : cell.second ? "u" : "span", { class: "value" }, cell.text);
}

function marks(cell) {
  const told = [cell.stale && "†", cell.imported && "‡", ...(cell.notes ?? [])].filter(Boolean);
  return told.length > 0 && el("sup", {}, told.join(","));
}

function spreadOf(cell) {
  if (state.spread === "error" && cell.spread) return el("span", { class: "spread" }, `±${cell.spread}`);
  if (state.spread === "interval" && cell.interval) {
    return el("span", { class: "spread line" }, cell.interval);
  }
  return null;
}

/* A shape beside the colour, for those who do not tell the colours apart. */
function versus(cell) {
  if (!state.versus || !board().baseline) return null;
  if (!cell.test?.significant) return el("span", { class: "better" }); // keeps the numbers in line
  const better = cell.test.better;
  const told = better ? "significantly better than the baseline" : "significantly worse than the baseline";
  return el("span", { class: better ? "better" : "worse", role: "img", "aria-label": told }, better ? "▲" : "▼");
}

function paperOf(cell) {
  if (!state.paper || !cell.paper) return null;
  return el("span", { class: "paper" }, `paper ${cell.paper.text} (${cell.paper.difference})`,
    cell.paperNote && el("sup", { title: cell.paperNote }, "!"));
}

/* A tint by rank in the column: the best of the rows that work is the deepest. */
function shade(grid, rows, columns) {
  columns.forEach((column, place) => {
    const works = rows.filter((r) => r.merge && !r.collapsed.length && Number.isFinite(numeric(r.cells[column.key]?.value)));
    const values = works.map((row) => numeric(row.cells[column.key].value));
    const [low, high] = [Math.min(...values), Math.max(...values)];
    rows.forEach((row, line) => {
      if (!works.includes(row) || high === low) return;
      const share = (numeric(row.cells[column.key].value) - low) / (high - low);
      const node = grid.tBodies[0].rows[line].cells[place + 1];
      node.style.setProperty("--share", String(column.higher ? share : 1 - share));
      node.classList.add("shaded");
    });
  });
}
