/* The table by keyboard: one stop for Tab, arrows inside it, Enter or Space does what a click does. */

function roving(grid, at) {
  const lines = [...grid.rows].slice(1).map((line) => [...line.cells]);
  const wanted = at && lines.flat().find((node) => node.dataset.at === at);
  const first = wanted ?? lines[1]?.[0] ?? lines[0][0];
  first.tabIndex = 0;
  if (wanted) wanted.focus({ preventScroll: true });
  let current = first;
  grid.addEventListener("focusin", (event) => {
    const node = event.target.closest("[data-at]");
    if (!node) return;
    current.tabIndex = -1;
    current = node;
    current.tabIndex = 0;
  });
  grid.addEventListener("keydown", (event) => {
    const y = lines.findIndex((line) => line.includes(current));
    const next = moved(event, lines, y, lines[y].indexOf(current));
    if (next) {
      next.focus();
      next.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else if (event.key === "Enter" || event.key === " ") {
      current.click();
    } else return;
    event.preventDefault();
  });
}

function moved(event, lines, y, x) {
  const last = lines.length - 1;
  const end = lines[y].length - 1;
  const all = event.ctrlKey || event.metaKey;
  const [toY, toX] = {
    ArrowUp: [Math.max(0, y - 1), x],
    ArrowDown: [Math.min(last, y + 1), x],
    ArrowLeft: [y, Math.max(0, x - 1)],
    ArrowRight: [y, Math.min(end, x + 1)],
    Home: [all ? 0 : y, 0],
    End: [all ? last : y, end],
    PageUp: [Math.max(0, y - 10), x],
    PageDown: [Math.min(last, y + 10), x],
  }[event.key] ?? [];
  return toY === undefined ? null : lines[toY][toX];
}

/* Tabs of the panel: arrows move between them. */
function tabs(list, act) {
  const nodes = list.map(([name, title], i) => button(title, () => choose(i),
    { role: "tab", id: `tab-${name}`, "aria-controls": "panel-body", "aria-selected": "false", tabindex: "-1" }));
  function choose(i) {
    nodes.forEach((node, j) => {
      node.setAttribute("aria-selected", String(i === j));
      node.tabIndex = i === j ? 0 : -1;
    });
    act(list[i][0]);
  }
  const bar = el("div", { role: "tablist", class: "tabs", on: { keydown: (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const to = (nodes.indexOf(document.activeElement) + step + nodes.length) % nodes.length;
    choose(to);
    nodes[to].focus();
    event.preventDefault();
  } } }, nodes);
  return { bar, choose };
}
