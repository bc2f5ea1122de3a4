/* The questions of a task, with what two rows made of each: a list that holds only what is in sight. */

const LINE = 44; // pixels of a line of the list

function verdict(column, value) {
  if (value === null || value === undefined) return { mark: "–", told: "does not count", kind: "none" };
  if (column.kind !== "accuracy") return { mark: short(value), told: short(value), kind: "graded" };
  const good = column.higher ? value : 1 - value;
  if (good >= 1) return { mark: "✓", told: "right", kind: "right" };
  if (good <= 0) return { mark: "✗", told: "wrong", kind: "wrong" };
  return { mark: "◐", told: `right in ${Math.round(good * 100)} %`, kind: "partly" };
}

const short = (value) => (Math.abs(value) >= 1e5 ? value.toExponential(2) : String(Number(value.toFixed(3))));

function better(column, a, b) {
  if (typeof a !== "number" || typeof b !== "number") return null;
  return column.higher ? a - b : b - a;
}

const FILTERS = {
  all: ["all questions", () => true],
  ab: ["A right, B wrong", (c, a, b) => better(c, a, b) > 0],
  ba: ["A wrong, B right", (c, a, b) => better(c, a, b) < 0],
  both: ["both right", (c, a, b) => c.kind === "accuracy" && ["right"].includes(verdict(c, a).kind) && verdict(c, b).kind === "right"],
  neither: ["both wrong", (c, a, b) => c.kind === "accuracy" && verdict(c, a).kind === "wrong" && verdict(c, b).kind === "wrong"],
  same: ["equally good", (c, a, b) => better(c, a, b) === 0],
};

async function drawSamples(body, row, column, item) {
  body.append(el("p", {}, "reading …"));
  const task = DATA.tasks[column.task];
  try {
    const index = await block(task.index);
    if (body.className !== "samples") return;
    body.replaceChildren();
    new Samples(body, task, index, row, column).open(item);
  } catch (error) {
    body.replaceChildren(el("p", { class: "problem" }, error.message));
  }
}

class Samples {
  constructor(body, task, index, row, column) {
    Object.assign(this, { task, index, column, filter: "all", words: "", hits: null, search: 0, both: false });
    this.a = index.rows.includes(row.label) ? row.label : index.rows[0];
    this.b = [board().baseline, ...index.rows].find((label) => label !== this.a && index.rows.includes(label)) ?? this.a;
    this.list = el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "Questions",
      on: { scroll: () => this.drawList(), keydown: (event) => this.key(event) } });
    this.sheet = el("div", { class: "sheet" });
    this.list.append(this.sheet);
    this.count = el("p", { class: "count", role: "status" });
    this.detail = el("article", { class: "detail", tabindex: "-1" });
    body.append(this.controls(), this.count, el("div", { class: "split" }, this.list, this.detail));
    new ResizeObserver(() => this.drawList()).observe(this.list);
  }

  open(id) {
    const at = this.index.ids.indexOf(id);
    this.chosen = at < 0 ? 0 : at;
    this.apply();
  }

  controls() {
    const rows = this.index.rows.map((label) => [label, visible(label)]);
    const find = el("input", { type: "search", placeholder: "search questions and answers", "aria-label": "Search",
      on: { input: () => { clearTimeout(this.typing); this.typing = setTimeout(() => this.find(find.value), 200); } } });
    const labelled = (name, node) => el("label", { class: "field" }, el("span", {}, name), node);
    const shown = Object.entries(FILTERS).filter(([name]) => this.column.kind === "accuracy" || !["both", "neither"].includes(name));
    const names = shown.map(([name, [text]]) => [name, this.column.kind === "accuracy" ? text
      : text.replace("A right, B wrong", "A better than B").replace("A wrong, B right", "B better than A")]);
    return el("div", { class: "bar" },
      labelled("A", select("A", rows, this.a, (v) => { this.a = v; this.apply(); })),
      labelled("B", select("B", rows, this.b, (v) => { this.b = v; this.apply(); })),
      select("Which questions", names, this.filter, (v) => { this.filter = v; this.apply(); }), find,
      checkbox("only A and B", this.both, (v) => { this.both = v; this.drawDetail(); }));
  }

  values(label) {
    return this.index.values[this.column.metric][this.index.rows.indexOf(label)];
  }

  apply() {
    const [a, b] = [this.values(this.a), this.values(this.b)];
    const keep = FILTERS[this.filter][1];
    const all = this.hits ?? this.index.ids.keys();
    this.items = [...all].filter((i) => keep(this.column, a[i], b[i]));
    if (!this.items.includes(this.chosen)) this.chosen = this.items[0] ?? -1;
    const number = (n) => n.toLocaleString("en");
    this.count.textContent = `${number(this.items.length)} of ${number(this.task.n)} questions`;
    this.sheet.style.height = `${this.items.length * LINE}px`;
    this.reveal();
    this.drawList();
    this.drawDetail();
  }

  reveal() {
    const top = this.items.indexOf(this.chosen) * LINE;
    if (top < this.list.scrollTop) this.list.scrollTop = Math.max(0, top);
    const below = top + LINE - this.list.clientHeight;
    if (below > this.list.scrollTop) this.list.scrollTop = below;
  }

  drawList() {
    const first = Math.max(0, Math.floor(this.list.scrollTop / LINE) - 4);
    const last = Math.min(this.items.length, first + Math.ceil(this.list.clientHeight / LINE) + 8);
    const [a, b] = [this.values(this.a), this.values(this.b)];
    const lines = [];
    for (let at = first; at < last; at += 1) lines.push(this.line(at, a, b));
    this.sheet.replaceChildren(...lines);
    this.list.setAttribute("aria-activedescendant", `question-${this.chosen}`);
  }

  line(at, a, b) {
    const i = this.items[at];
    const told = [a[i], b[i]].map((value) => verdict(this.column, value));
    const node = el("div", { role: "option", id: `question-${i}`, class: "question", "aria-selected": String(i === this.chosen),
      "aria-posinset": String(at + 1), "aria-setsize": String(this.items.length), on: { click: () => this.choose(i) } },
    el("span", { class: "id" }, visible(this.index.ids[i])), el("bdi", { class: "preview" }, visible(this.index.previews[i])),
    told.map((v, k) => el("span", { class: `verdict ${v.kind}`, title: `${"AB"[k]}: ${v.told}` },
      el("span", { class: "who" }, "AB"[k]), v.mark)));
    node.style.top = `${at * LINE}px`;
    return node;
  }

  key(event) {
    const at = this.items.indexOf(this.chosen);
    const page = Math.max(1, Math.floor(this.list.clientHeight / LINE) - 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -at, End: this.items.length - 1 - at }[event.key];
    if (event.key === "Enter") this.detail.focus();
    else if (step === undefined) return;
    else this.choose(this.items[Math.min(this.items.length - 1, Math.max(0, at + step))]);
    event.preventDefault();
  }

  choose(i) {
    if (i === undefined) return;
    this.chosen = i;
    this.reveal();
    this.drawList();
    this.drawDetail();
  }

  blockOf(i) {
    let at = this.index.starts.length - 1;
    while (this.index.starts[at] > i) at -= 1;
    return at;
  }

  async drawDetail() {
    const i = this.chosen;
    if (i < 0) return void this.detail.replaceChildren(el("p", {}, "No question is left by these filters."));
    const at = this.blockOf(i);
    try {
      const items = await block(this.task.blocks[at]);
      if (i !== this.chosen) return;
      this.detail.replaceChildren(...answersOf(this, i, items[i - this.index.starts[at]]));
      this.detail.scrollTop = 0;
      if (shownCell) { shownCell.item = this.index.ids[i]; remember(); }
    } catch (error) {
      this.detail.replaceChildren(el("p", { class: "problem" }, error.message));
    }
  }

  /* Through all texts, block by block; a newer search ends an older one. */
  async find(words) {
    const mine = ++this.search;
    const wanted = words.trim().toLowerCase();
    this.hits = null;
    if (!wanted) return this.apply();
    const hits = [];
    for (const [number, name] of this.task.blocks.entries()) {
      this.count.textContent = `searching ${number + 1} of ${this.task.blocks.length} …`;
      const items = await block(name);
      if (mine !== this.search) return;
      items.forEach((item, k) => contains(item, wanted) && hits.push(this.index.starts[number] + k));
    }
    this.hits = hits;
    this.apply();
  }
}

function contains(item, wanted) {
  const texts = [...item.prompts, item.target, ...item.answers.flatMap((a) => a?.texts ?? a?.choices?.map(([t]) => t) ?? [])];
  return texts.some((text) => text.toLowerCase().includes(wanted));
}
