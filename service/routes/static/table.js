// The table of models: sorted, filtered and divided into pages. The selected model is in the URL.

import { byId, element } from "./draw.js";
import { factor } from "./totals.js";
import { number, percent, size } from "./words.js";

const ON_PAGE = 20;
/** Columns: title, value to sort by, text, and a class: `number` columns sort the greatest first, `wide` ones need width. */
const COLUMNS = {
  name: ["Name", (model) => model.name],
  rows: ["Rows", (model) => model.rows, number, "number wide"],
  dim: ["Dim", (model) => model.dim, number, "number wide"],
  bits: ["Bits", (model) => model.nbit, String, "number wide"],
  kind: ["Kind", (model) => model.codebook_kind, String, "wide"],
  size: ["Size", (model) => model.bytes, size, "number"],
  smaller: ["Smaller", factor, (value) => `${number(value)}×`, "number"],
  error: ["Error", (model) => model.frobenius_error, percent, "number wide"],
  state: ["State", (model) => model.file.state, String, "wide"],
};

const compare = new Intl.Collator("en", { numeric: true }).compare;

let models = [];
let current;
let order = { column: "name", down: false };
let page = 0;
let drawn = new Map();

export function startTable() {
  for (const [column, [title, , , kind]] of Object.entries(COLUMNS)) {
    const button = element("button", { type: "button" }, title);
    button.addEventListener("click", () => sortBy(column));
    byId("heads").append(element("th", { scope: "col", class: kind, "data-column": column }, button));
  }
  byId("filter").addEventListener("input", () => turnTo(0));
  byId("back").addEventListener("click", () => turnTo(page - 1));
  byId("forward").addEventListener("click", () => turnTo(page + 1));
}

/** Show all models that pass the filter; `name` is the selected one. */
export function showTable(list, name) {
  models = list;
  current = name;
  draw();
}

function sortBy(column) {
  const numeric = COLUMNS[column][3]?.startsWith("number") ?? false;
  order = { column, down: order.column === column ? !order.down : numeric };
  turnTo(0);
}

function turnTo(number) {
  page = number;
  draw();
}

function draw() {
  const words = byId("filter").value.toLowerCase().split(/\s+/);
  const passing = models.filter(({ name, codebook_kind, nbit, file }) => {
    const text = `${name} ${codebook_kind} ${nbit}-bit ${file.state}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const value = COLUMNS[order.column][1];
  const sign = order.down ? -1 : 1;
  const byValue = (a, b) => (typeof a === "number" ? a - b : compare(a, b));
  passing.sort((a, b) => sign * byValue(value(a), value(b)) || compare(a.name, b.name));
  const pages = Math.max(1, Math.ceil(passing.length / ON_PAGE));
  page = Math.max(0, Math.min(page, pages - 1));
  const shown = passing.slice(page * ON_PAGE, (page + 1) * ON_PAGE);
  describe(passing.length, shown.length);
  byId("find").hidden = models.length < 2;
  byId("pages").hidden = models.length <= ON_PAGE;
  byId("back").disabled = page === 0;
  byId("forward").disabled = page === pages - 1;
  for (const head of byId("heads").children) {
    const sorted = head.dataset.column === order.column;
    if (sorted) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  replaceRows(shown);
}

function describe(passing, shown) {
  const first = page * ON_PAGE + 1;
  const range = shown < passing ? `, ${first} to ${first + shown - 1} shown` : "";
  const of = passing === models.length ? "" : ` of ${number(models.length)}`;
  const text = `${number(passing)}${of} ${models.length === 1 ? "model" : "models"}${range}`;
  if (byId("count").textContent !== text) byId("count").textContent = text;
}

/** Draw only the rows that changed, and keep the focus. */
function replaceRows(shown) {
  const before = drawn;
  drawn = new Map(shown.map((model) => {
    const content = JSON.stringify([model, model.name === current]);
    const old = before.get(model.name);
    return [model.name, old?.content === content ? old : { content, node: row(model) }];
  }));
  const nodes = [...drawn.values()].map(({ node }) => node);
  const place = byId("rows");
  if (nodes.length === place.children.length && nodes.every((node, i) => node === place.children[i])) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.hash : null;
  place.replaceChildren(...nodes);
  if (focused) nodes.map((node) => node.querySelector("a")).find(({ hash }) => hash === focused)?.focus({ preventScroll: true });
}

function row(model) {
  const { name, rows, dim, nbit, file } = model;
  const cells = Object.values(COLUMNS).slice(1).map(([, value, text, kind]) => element("td", { class: kind }, text(value(model))));
  const selected = name === current;
  return element("tr", { class: `${file.state} ${selected ? "selected" : ""}` },
    element("th", { scope: "row" },
      element("a", { href: `#model=${encodeURIComponent(name)}`, title: name, "aria-current": selected && "true" }, name),
      element("span", { class: "narrow quiet" }, `${number(rows)} × ${dim}, ${nbit}-bit${file.state === "served" ? "" : `, ${file.state}`}`)),
    ...cells);
}
