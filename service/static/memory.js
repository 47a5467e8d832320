// What the vocabularies take, beside what they replace, and what the processes hold.

import { element, stackedBar } from "./draw.js";
import { number, size } from "./words.js";

const PARTS = {
  codes: "codes", codebook: "codebook", mean: "mean", row_scale: "row scales", zero_rows: "zero rows",
  tokens: "tokens", token_offsets: "token offsets", token_index: "token index",
};

const byId = (id) => document.getElementById(id);

export function showMemory({ models, memory, workers }) {
  byId("tables").replaceChildren(...models.map(card));
  const shared = memory.pss - memory.private;
  byId("process").replaceChildren(
    tile("Private", size(memory.private), "belongs to one process each"),
    tile("Shared", size(shared), "counted once, however many share it"),
    tile("GPU", size(memory.gpu), memory.gpu ? "tables on the device" : "not used"),
    tile("Processes", number(memory.processes.length), `${workers} ${workers > 1 ? "workers" : "worker"}`),
  );
  byId("process-note").textContent = models.length ? "" : "No model is loaded.";
}

function tile(name, value, note) {
  return element("div", { class: "tile" }, element("dt", {}, name),
    element("dd", { class: "figure" }, value), element("dd", { class: "quiet" }, note));
}

function card({ name, rows, dim, nbit, bytes, float32_bytes, dict_bytes }) {
  const before = float32_bytes + dict_bytes;
  const parts = Object.keys(PARTS).filter((part) => bytes[part] > 0);
  const pieces = parts.map((part) => ({ className: `part-${part}`, size: bytes[part] }));
  const replaced = [{ className: "float32", size: float32_bytes }, { className: "dict", size: dict_bytes }];
  const spoken = parts.map((part) => `${PARTS[part]} ${size(bytes[part])}`).join(", ");
  return element("article", { class: "card", "data-model": name, "data-total": bytes.total },
    element("div", { class: "headline" },
      element("h3", {}, name),
      element("span", { class: "quiet" }, `${number(rows)} × ${dim} at ${nbit} bits`),
      element("strong", { class: "factor" }, `${number(before / bytes.total)}× smaller`)),
    row("float32 + dict", size(before), stackedBar(replaced, before,
      `A float32 matrix takes ${size(float32_bytes)}, a dict of its tokens about ${size(dict_bytes)}`)),
    row("smallfry", size(bytes.total), stackedBar(pieces, before, `smallfry takes ${size(bytes.total)}`), "strong"),
    row("its parts", "", stackedBar(pieces, bytes.total, `Enlarged: ${spoken}`)),
    element("ul", { class: "legend" }, ...parts.map((part) => element("li", { class: `part-${part}` },
      PARTS[part], " ", element("b", {}, size(bytes[part])))),
      element("li", { class: "float32" }, "float32 ", element("b", {}, size(float32_bytes))),
      dict_bytes ? element("li", { class: "dict" }, "dict, estimated ", element("b", {}, size(dict_bytes))) : ""));
}

function row(name, value, bar, kind = "") {
  return element("div", { class: `bar-row ${kind}` }, element("span", {}, name), bar, element("span", { class: "amount" }, value));
}
