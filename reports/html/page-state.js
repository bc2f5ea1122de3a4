/* What is shown: one state, changed by controls, drawn by the table. */

const state = {
  family: 0,
  sort: null, // {key, best: whether the best is on top}
  text: "",
  roles: new Set(), // left out
  methods: new Set(), // left out
  columns: new Set(), // left out
  spread: "error",
  pinned: true,
  versus: true,
  paper: true,
  shade: false,
};

const board = () => DATA.boards[state.family];
const numeric = (value) => (typeof value === "string" ? Number(value) : value);

function shownColumns() {
  return board().columns.filter((column) => !state.columns.has(column.key));
}

function methodOf(row) {
  return row.method ?? row.role;
}

function shownRows() {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = board().rows.filter((row) => {
    const told = `${row.label} ${row.role} ${row.method ?? ""} ${row.parameters}`.toLowerCase();
    return !state.roles.has(row.role) && !state.methods.has(methodOf(row)) && words.every((w) => told.includes(w));
  });
  if (!state.sort) return rows;
  return rows.sort(state.sort.key === "label" ? byLabel : byColumn);
}

function pinnedFirst(a, b) {
  return state.pinned ? Number(a.merge) - Number(b.merge) : 0;
}

function byLabel(a, b) {
  const order = a.label.localeCompare(b.label, "en", { numeric: true });
  return pinnedFirst(a, b) || (state.sort.best ? order : -order);
}

/* Collapsed rows come behind those that work whatever the direction, and those without a value last. */
function byColumn(a, b) {
  const column = board().columns.find((c) => c.key === state.sort.key);
  const [x, y] = [a, b].map((row) => numeric(row.cells[column.key]?.value));
  const lacking = (v) => Number(v === undefined || Number.isNaN(v));
  const broken = (row) => Number(row.collapsed.length > 0);
  const up = state.sort.best === column.higher ? -1 : 1;
  const by = x < y ? -1 : x > y ? 1 : 0;
  return pinnedFirst(a, b) || lacking(x) - lacking(y) || broken(a) - broken(b) || (lacking(x) ? 0 : up * by);
}

/* Best first, worst first, the board's own order. */
function sortBy(key) {
  if (state.sort?.key !== key) state.sort = { key, best: true };
  else if (state.sort.best) state.sort.best = false;
  else state.sort = null;
  drawTable();
}

function ariaSort(column) {
  if (state.sort?.key !== (column ? column.key : "label")) return "none";
  const up = column ? state.sort.best !== column.higher : state.sort.best;
  return up ? "ascending" : "descending";
}
