/* Elements from data. Text becomes text nodes and nothing else; no string here is ever read as markup. */

function el(tag, given, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    } else if (name in node && typeof value !== "string") {
      node[name] = value;
    } else {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  for (const child of children.flat()) {
    if (child !== undefined && child !== null && child !== false && child !== "") node.append(child);
  }
  return node;
}

/* A table's own entry: a row may be called `constructor`. */
const own = (table, key) => (Object.hasOwn(table, key) ? table[key] : undefined);

const byId = (id) => document.getElementById(id);

function button(text, act, given) {
  return el("button", { type: "button", ...given, on: { click: act } }, text);
}

function checkbox(text, checked, act, given) {
  const box = el("input", { type: "checkbox", checked, on: { change: () => act(box.checked) }, ...given });
  return el("label", { class: "check" }, box, el("span", {}, text));
}

function select(name, options, chosen, act) {
  const items = options.map(([value, text]) => el("option", { value, selected: value === chosen }, text));
  const node = el("select", { "aria-label": name, on: { change: () => act(node.value) } }, items);
  return node;
}

function definitions(pairs) {
  const told = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return el("dl", {}, told.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]).flat());
}

async function copy(text, from) {
  const before = from.textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyBySelection(text); // browsers that keep the clipboard from pages on disk
  }
  from.textContent = done ? "copied" : "not copied: select it by hand";
  setTimeout(() => { from.textContent = before; }, 1500);
}

function copyBySelection(text) {
  const area = el("textarea", { class: "offscreen" });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/* Opens downwards, one at a time; closes on Escape, on a click elsewhere, and when the focus leaves. */
function menu(title, fill) {
  const body = el("div", { class: "menu-body" });
  const node = el("details", { class: "menu" }, el("summary", {}, title), body);
  node.addEventListener("toggle", () => {
    if (node.open) body.replaceChildren(...[fill()].flat());
  });
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !node.open) return;
    node.open = false;
    node.querySelector("summary").focus();
    event.stopPropagation();
  });
  node.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !node.contains(event.relatedTarget)) node.open = false;
  });
  document.addEventListener("pointerdown", (event) => {
    if (!node.contains(event.target)) node.open = false;
  });
  return node;
}
