// Sizes of the models compared with what they replace, and memory of the processes.

import { byId, element, stackedBar } from "./draw.js";
import { number, size } from "./words.js";

const PARTS = {
  codes: "codes", codebook: "codebook", mean: "mean", column_scale: "column scales", row_scale: "row scales",
  zero_rows: "zero rows", rotation: "rotation", head_offsets: "head offsets", tokens: "tokens", token_offsets: "token offsets", token_index: "token index",
  tokenizer: "tokenizer",
};

export const factor = ({ bytes, float32_bytes, dict_bytes }) => (float32_bytes + dict_bytes) / bytes;

export function showFactor(value) {
  return value < 1 ? `${number(1 / value)}× larger` : `${number(value)}× smaller`;
}

export function showTotals(models) {
  const sum = (key) => models.reduce((total, model) => total + model[key], 0);
  const total = { bytes: sum("bytes"), float32_bytes: sum("float32_bytes"), dict_bytes: sum("dict_bytes") };
  const rows = sum("rows");
  byId("total-models").textContent = number(models.length);
  byId("total-rows").textContent = `${number(rows)} ${rows === 1 ? "row" : "rows"}`;
  byId("total-size").replaceChildren(...models.length
    ? [element("strong", { class: "factor" }, showFactor(factor(total))),
      ...comparison(total, [{ className: "part-all", size: total.bytes }])]
    : ["No model is loaded."]);
}

export function showProcesses({ memory, workers }) {
  byId("memory").textContent = size(memory.pss);
  byId("memory-parts").textContent = `${size(memory.private)} private, ${size(memory.pss - memory.private)} shared; `
    + `${memory.gpu ? `GPU ${size(memory.gpu)}; ` : ""}${workers} ${workers > 1 ? "workers" : "worker"}`;
}

/** The parts of one model, next to what it replaces. */
export function breakdown(model) {
  const { bytes, float32_bytes, dict_bytes } = model;
  const parts = Object.keys(PARTS).filter((part) => bytes[part] > 0);
  const pieces = parts.map((part) => ({ className: `part-${part}`, size: bytes[part] }));
  const spoken = parts.map((part) => `${PARTS[part]} ${size(bytes[part])}`).join(", ");
  return [...comparison({ bytes: bytes.total, float32_bytes, dict_bytes }, pieces),
    row("its parts", "", stackedBar(pieces, bytes.total, `Enlarged: ${spoken}`)),
    element("ul", { class: "legend" }, ...parts.map((part) => key(`part-${part}`, PARTS[part], bytes[part])),
      key("float32", "float32", float32_bytes), dict_bytes ? key("dict", "dict, estimated", dict_bytes) : "")];
}

function key(className, name, bytes) {
  return element("li", { class: className }, name, " ", element("b", {}, size(bytes)));
}

/** Sizes of what is served and of what it replaces, drawn to one scale. */
function comparison({ bytes, float32_bytes, dict_bytes }, pieces) {
  const before = float32_bytes + dict_bytes;
  const replaced = [{ className: "float32", size: float32_bytes }, { className: "dict", size: dict_bytes }];
  const scale = Math.max(before, bytes);
  return [
    row(dict_bytes ? "float32 + dict" : "float32", size(before), stackedBar(replaced, scale, dict_bytes
      ? `A float32 matrix takes ${size(float32_bytes)}, a dict of its tokens about ${size(dict_bytes)}`
      : `A float32 matrix takes ${size(float32_bytes)}`)),
    row("smallfry", size(bytes), stackedBar(pieces, scale, `smallfry takes ${size(bytes)}`), "strong"),
  ];
}

function row(name, value, bar, kind = "") {
  return element("div", { class: `bar-row ${kind}` }, element("span", {}, name), bar, element("span", { class: "amount" }, value));
}
