/* Tooltips: on hover and on focus, gone on Escape. */

const tips = new WeakMap();
const tipFor = (node, told) => tips.set(node, told);

function headTip(column) {
  if (!column) return [["rows", "click to sort by name"]];
  if (column.average) return [["average", `of the ${column.group} columns with ${column.arrow}`]];
  return [[column.title, `${column.task} · ${column.metric}`],
    ["better", column.higher ? "higher ↑" : "lower ↓"], ["n", column.n],
    ["detectable", column.detectable && `a true difference of ${column.detectable} is found 4 times in 5`],
    ["counts", !column.main && "a second metric of its task: in no average"]];
}

function rowTip(row) {
  return [["role", row.role], ["method", row.method], ["recipe", row.parameters],
    ["collapsed", row.collapsed.join("; ")], ["notes", row.notes.join("; ")],
    ["made in", Object.entries(row.seconds).map(([phase, s]) => `${phase} ${s}`).join(", ")],
    ["peak memory", row.peak]];
}

function testTold(test) {
  return test && [`${test.difference}${test.interval ? ` (${test.interval})` : ""}`,
    test.p && `p ${equals(test.p)}`, test.holm && `Holm ${equals(test.holm)}`, `${test.name}, n = ${test.n}`]
    .filter(Boolean).join(" · ");
}

const equals = (p) => (p.startsWith("<") ? p : `= ${p}`);

function cellTip(row, column, cell) {
  return [[row.label, `${column.title} ${cell.text}`], ["95 %", cell.interval],
    [cell.spreadIs, cell.spread && `±${cell.spread}`], ["n", cell.n], ["seeds", cell.seeds?.join(", ")],
    ["vs baseline", testTold(cell.test)], ["kept of the expert", cell.kept], ["recipe", row.parameters],
    ["paper", cell.paper && `${cell.paper.text} (${cell.paper.difference})`], ["paper's note", cell.paperNote],
    ["went wrong", ratesTold(cell)], ["collapsed", row.collapsed.join("; ")],
    ["mixed", cell.notes && board().mixed.filter(([mark]) => cell.notes.includes(mark)).map(([, t]) => t).join("; ")]];
}

function ratesTold(cell) {
  return Object.entries(cell.rates ?? {}).filter(([, share]) => share !== "0.0%")
    .map(([name, share]) => `${name} ${share}`).join(", ");
}

function watchTips() {
  const tip = byId("tip");
  const show = (event) => {
    const node = event.target.closest?.("[data-at]");
    const told = node && tips.get(node)?.();
    if (!told) return hide();
    const lines = told.filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false);
    tip.replaceChildren(definitions(lines.map(([name, value]) => [visible(name), visible(String(value))])));
    tip.hidden = false;
    node.setAttribute("aria-describedby", "tip");
    place(tip, node.getBoundingClientRect());
  };
  let soon;
  const hide = () => { clearTimeout(soon); tip.hidden = true; };
  document.addEventListener("pointerover", (event) => {
    hide();
    if (event.pointerType === "mouse") soon = setTimeout(show, 250, event);
  });
  document.addEventListener("focusin", (event) => (event.target.matches(":focus-visible") ? show(event) : hide()));
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("scroll", hide, { passive: true, capture: true });
}

function place(tip, box) {
  const { width, height } = tip.getBoundingClientRect();
  const below = box.bottom + 6 + height < innerHeight;
  tip.style.top = `${Math.max(4, below ? box.bottom + 6 : box.top - 6 - height)}px`;
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - width - 4))}px`;
}
