/* The controls above the table, and the notes below it. */

function drawControls() {
  const find = el("input", { type: "search", placeholder: "filter rows", "aria-label": "Filter rows", id: "filter",
    on: { input: () => { state.text = find.value; drawTable(); } } });
  byId("bar").replaceChildren(find, menu("Rows", rowChoices), menu("Columns", columnChoices), menu("Show", showChoices));
}

function choice(set, value, text) {
  return checkbox(text, !set.has(value), (on) => {
    if (on) set.delete(value);
    else set.add(value);
    drawTable();
  });
}

function allOrNone(set, values) {
  const change = (on) => (event) => {
    values.forEach((value) => (on ? set.delete(value) : set.add(value)));
    event.target.closest("fieldset").querySelectorAll("input").forEach((box) => { box.checked = on; });
    drawTable();
  };
  return el("p", { class: "both" }, button("all", change(true), { class: "plain" }),
    button("none", change(false), { class: "plain" }));
}

function rowChoices() {
  const { rows } = board();
  const roles = [...new Set(rows.map((row) => row.role))];
  const methods = [...new Set(rows.filter((row) => row.method).map((row) => row.method))];
  return [
    el("fieldset", {}, el("legend", {}, "Roles"), roles.map((role) => choice(state.roles, role, visible(role)))),
    el("fieldset", {}, el("legend", {}, "Methods"), allOrNone(state.methods, methods),
      methods.map((method) => choice(state.methods, method, visible(method)))),
  ];
}

function columnChoices() {
  return board().groups.map((group) => {
    const columns = board().columns.filter((column) => column.group === group);
    return el("fieldset", {}, el("legend", {}, group), columns.length > 1 && allOrNone(state.columns, columns.map((c) => c.key)),
      columns.map((column) => choice(state.columns, column.key, `${column.title} ${column.arrow}`)));
  });
}

function showChoices() {
  const names = [["error", "± error"], ["interval", "95 % interval"], ["none", "value alone"]];
  const spread = names.map(([value, text]) => el("label", { class: "check" }, el("input", { type: "radio", name: "spread",
    checked: state.spread === value, on: { change: () => { state.spread = value; drawTable(); } } }), el("span", {}, text)));
  const flag = (name, text) => checkbox(text, state[name], (on) => { state[name] = on; drawTable(); });
  return [el("fieldset", {}, el("legend", {}, "Beside the value"), spread),
    el("fieldset", {}, el("legend", {}, "Also"), flag("versus", "▲▼ against the baseline"),
      flag("shade", "tint by value"), flag("pinned", "references on top"),
      board().withPaper && flag("paper", "the paper's numbers"))];
}

function drawTop() {
  const { title, family, limit, split } = board();
  document.title = visible(`${family}: ${title}`);
  byId("title").replaceChildren(el("bdi", {}, visible(family)));
  const facts = [title, split !== "test" && `${split} split`, limit !== null && `first ${limit} items of each task`];
  byId("facts").textContent = visible(facts.filter(Boolean).join(" · "));
  const families = DATA.boards.map((b, i) => [String(i), visible(b.family)]);
  byId("actions").replaceChildren(
    ...(families.length > 1 ? [el("label", { class: "field" }, el("span", {}, "family"),
      select("Family", families, String(state.family), switchFamily))] : []),
    button("print", () => print(), { class: "plain" }), themeButton());
}

function switchFamily(value) {
  state.family = Number(value);
  state.sort = null;
  for (const set of [state.roles, state.methods, state.columns]) set.clear();
  drawAll();
  document.querySelector("#actions select").focus();
}

function themeButton() {
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const node = button("", () => {
    setTheme(dark() ? "light" : "dark");
    name();
  }, { class: "plain", id: "theme" });
  const name = () => { node.textContent = dark() ? "light" : "dark"; };
  name();
  return node;
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("harness-theme", theme);
  } catch { /* a browser that gives pages on disk no storage: the choice lasts as long as the page */ }
}

function rememberedTheme() {
  try {
    const theme = localStorage.getItem("harness-theme");
    if (["light", "dark"].includes(theme)) document.documentElement.dataset.theme = theme;
  } catch { /* as above: the system's choice stands */ }
}

/* What other reports mark with ° has a direction here. */
const pageMarks = (note) => (note.startsWith("° ") ? `▲ ▼ significantly better, worse: ${note.slice(2)}` : note);

function drawNotes() {
  const { footnotes, mixed, settings, provenance } = board();
  const lines = [...footnotes.map(pageMarks), ...mixed.map(([mark, text]) => `${mark}: ${text}`),
    ...DATA.unread.map((name) => `the board of ${name}, beside this one, cannot be read`)];
  byId("notes").replaceChildren(el("ul", {}, lines.map((line) => el("li", {}, el("bdi", {}, visible(line))))),
    ...[settings && fold("Settings", settings), provenance && fold("Versions and revisions", provenance)].filter(Boolean),
    ...(state.family ? [elsewhere()] : []));
}
