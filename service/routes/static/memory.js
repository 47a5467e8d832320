// Sizes of the models compared with what they replace, and memory of the processes.

import { element, stackedBar } from "./draw.js";
import { bits, number, size } from "./words.js";

const PARTS = {
  codes: "codes", codebook: "codebook", mean: "mean", row_scale: "row scales", zero_rows: "zero rows", rotation: "rotation",
  tokens: "tokens", token_offsets: "token offsets", token_index: "token index",
};

const byId = (id) => document.getElementById(id);

export function showMemory({ models, memory, workers }) {
  byId("tables").replaceChildren(...models.length > 1 ? [summary(models)] : [], ...models.map(card));
  const shared = memory.pss - memory.private;
  byId("process").replaceChildren(
    tile("Private", size(memory.private), "not shared between processes"),
    tile("Shared", size(shared), "counted once"),
    tile("GPU", size(memory.gpu), memory.gpu ? "tables on the device" : "not used"),
    tile("Processes", number(memory.processes.length), `${workers} ${workers > 1 ? "workers" : "worker"}`),
  );
  byId("process-note").textContent = models.length ? "" : "No model is loaded.";
}

function tile(name, value, note) {
  return element("div", { class: "tile" }, element("dt", {}, name),
    element("dd", { class: "figure" }, value), element("dd", { class: "quiet" }, note));
}

function summary(models) {
  const sum = (of) => models.reduce((total, model) => total + of(model), 0);
  const total = sum(({ bytes }) => bytes.total);
  const [float32, dict] = [sum((model) => model.float32_bytes), sum((model) => model.dict_bytes)];
  return element("article", { class: "card", id: "all-tables" },
    headline(`All ${models.length} models`, "", (float32 + dict) / total),
    ...comparison(float32, dict, total, [{ className: "part-all", size: total }]));
}

function headline(title, note, factor) {
  return element("div", { class: "headline" }, element("h3", {}, title), element("span", { class: "quiet" }, note),
    element("strong", { class: "factor" }, `${number(factor)}× smaller`));
}

/** Sizes of the models and of what they replace, drawn to one scale. */
function comparison(float32, dict, total, pieces) {
  const before = float32 + dict;
  const replaced = [{ className: "float32", size: float32 }, { className: "dict", size: dict }];
  return [
    row(dict ? "float32 + dict" : "float32", size(before), stackedBar(replaced, before, dict
      ? `A float32 matrix takes ${size(float32)}, a dict of its tokens about ${size(dict)}`
      : `A float32 matrix takes ${size(float32)}`)),
    row("smallfry", size(total), stackedBar(pieces, before, `smallfry takes ${size(total)}`), "strong"),
  ];
}

function card({ name, rows, dim, nbit, bytes, float32_bytes, dict_bytes }) {
  const parts = Object.keys(PARTS).filter((part) => bytes[part] > 0);
  const pieces = parts.map((part) => ({ className: `part-${part}`, size: bytes[part] }));
  const spoken = parts.map((part) => `${PARTS[part]} ${size(bytes[part])}`).join(", ");
  return element("article", { class: "card", "data-model": name, "data-total": bytes.total },
    headline(name, `${number(rows)} × ${dim} at ${bits(nbit)}`, (float32_bytes + dict_bytes) / bytes.total),
    ...comparison(float32_bytes, dict_bytes, bytes.total, pieces),
    row("its parts", "", stackedBar(pieces, bytes.total, `Enlarged: ${spoken}`)),
    element("ul", { class: "legend" }, ...parts.map((part) => element("li", { class: `part-${part}` },
      PARTS[part], " ", element("b", {}, size(bytes[part])))),
      element("li", { class: "float32" }, "float32 ", element("b", {}, size(float32_bytes))),
      dict_bytes ? element("li", { class: "dict" }, "dict, estimated ", element("b", {}, size(dict_bytes))) : ""));
}

function row(name, value, bar, kind = "") {
  return element("div", { class: `bar-row ${kind}` }, element("span", {}, name), bar, element("span", { class: "amount" }, value));
}
