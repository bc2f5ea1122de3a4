/* The panel of a row or a cell: where a number comes from, and the samples behind it. */

let shownCell = null; // {row, column, tab, item}

function openPanel(row, column, tab = "origin", item = null) {
  const panel = byId("panel");
  const samples = column && state.family === 0 && own(DATA.tasks, column.task);
  const body = el("div", { id: "panel-body", role: "tabpanel" });
  const list = [["origin", "Where it comes from"], samples && ["samples", "Samples"]].filter(Boolean);
  const show = (name) => {
    shownCell = { row, column, tab: name, item };
    body.setAttribute("aria-labelledby", `tab-${name}`);
    body.className = name;
    body.replaceChildren();
    if (name === "origin") drawOrigin(body, row, column);
    else drawSamples(body, row, column, item);
    remember();
  };
  const { bar, choose } = tabs(list, show);
  panel.replaceChildren(el("header", {},
    el("h2", { id: "panel-title" }, el("bdi", {}, visible(row.label)),
      column && el("span", { class: "on" }, ` ${column.title} ${column.arrow}`)),
    button("×", () => panel.close(), { class: "close", "aria-label": "Close" })), bar, body);
  if (!panel.open) panel.showModal();
  byId("tip").hidden = true;
  const start = Math.max(0, list.findIndex(([name]) => name === tab));
  choose(start);
  bar.children[start].focus();
}

function closedPanel() {
  shownCell = null;
  byId("panel").replaceChildren();
  remember();
}

/* The address names what is open, so that it can be sent on. */
function remember() {
  const told = shownCell && { row: shownCell.row.label, column: shownCell.column?.key ?? "", tab: shownCell.tab,
    ...(shownCell.item !== null && shownCell.item !== undefined && { item: shownCell.item }) };
  const hash = told ? `#${new URLSearchParams(told)}` : "";
  try {
    history.replaceState(null, "", hash || location.pathname + location.search);
  } catch {
    location.hash = hash; // where pages on disk may not rewrite their address
  }
}

function openRemembered() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const row = board().rows.find((r) => r.label === asked.get("row"));
  const column = board().columns.find((c) => c.key === asked.get("column"));
  if (row) openPanel(row, row.cells[column?.key] ? column : null, asked.get("tab"), asked.get("item"));
}

function drawOrigin(body, row, column) {
  const cell = column && row.cells[column.key];
  body.append(el("section", {}, cell ? cellFacts(row, column, cell) : rowFacts(row)));
  if (row.command) body.append(commandOf(row));
  if (row.recipe) body.append(fold("What identifies the row", row.recipe, true));
  if (cell?.settings) body.append(fold("Settings of the cell", cell.settings));
  if (state.family !== 0) {
    body.append(elsewhere());
    return;
  }
  const files = el("section", { class: "files" }, el("p", {}, "reading …"));
  body.append(files);
  block("origins").then((found) => files.replaceChildren(...originFiles(found, row, column)), (error) => {
    files.replaceChildren(el("p", { class: "problem" }, error.message));
  });
}

function cellFacts(row, column, cell) {
  return [el("p", { class: "figure" }, el("strong", {}, cell.text + (row.collapsed.length ? "*" : "")),
    cell.spread && ` ±${cell.spread}`), definitions([
    ["95 % interval", cell.interval], ["n", String(cell.n)], [cell.spreadIs, cell.spread],
    ["single runs", cell.seeds?.join(", ")], ["standard error of one run, over items", cell.items],
    ["against the baseline", testTold(cell.test)],
    ["kept of the best expert", cell.kept],
    ["in the paper", cell.paper && `${cell.paper.text} (difference ${cell.paper.difference})`],
    ["about the paper's number", cell.paperNote], ["tokens per response", cell.tokens],
    ["responses that were", Object.entries(cell.rates ?? {}).map(([name, share]) => `${name} ${share}`).join(" · ")],
    ["collapsed", row.collapsed.join("; ")],
    ["parameters", visible(row.parameters)], ["older code or lock", cell.stale && "yes (†)"],
  ])];
}

function rowFacts(row) {
  return definitions([["role", row.role], ["method", row.method], ["parameters", visible(row.parameters)],
    ["collapsed", row.collapsed.join("; ")], ["notes", visible(row.notes.join("; "))],
    ...Object.entries(row.seconds).map(([phase, s]) => [`seconds: ${phase}`, s]), ["peak memory", row.peak]]);
}

function commandOf(row) {
  const copyIt = button("copy", () => copy(row.command, copyIt), { class: "copy" });
  return el("section", { class: "command" }, el("h3", {}, "Make it again"),
    el("div", { class: "line" }, el("pre", { tabindex: "0" }, el("code", {}, visible(row.command))), copyIt));
}

function originFiles(found, row, column) {
  const folders = [];
  const measured = column && own(own(found.cells, row.label) ?? {}, column.key);
  const made = own(found.rows, row.label);
  for (const folder of measured || []) folders.push(["Measured in", found.folders[folder]]);
  if (made) folders.push(["Made in", made]);
  return folders.flatMap(([title, { folder, files }]) => [el("h3", {}, title),
    el("p", {}, el("code", { class: "path" }, visible(folder))),
    ...Object.entries(files).map(([name, text]) => fold(name, text)),
    Object.keys(files).length === 0 && el("p", {}, "Its files were not there when this page was written.")])
    .filter(Boolean);
}

function fold(title, text, open = false) {
  return el("details", { open, class: "fold" }, el("summary", {}, title), el("pre", { tabindex: "0" }, visible(text)));
}

function elsewhere() {
  const { page, family } = board();
  return el("p", {}, "Recipes and samples are in the page of ",
    page ? el("a", { href: page }, family) : el("span", {}, `${family}, which has none beside this one`), ".");
}
