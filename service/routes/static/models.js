// The loaded models.

import { element, histogram } from "./draw.js";
import { ago, bits, number, percent, seconds, size } from "./words.js";

export function showModels(models) {
  document.getElementById("model-list").replaceChildren(...models.map(card));
}

function card(model) {
  const { name, digest, rows, dim, nbit, codebook, clip, frobenius_error, metadata, file } = model;
  const source = metadata.source ? describeSource(metadata.source) : "not said";
  const facts = [
    ["Rows", number(rows)], ["Dimensions", number(dim)], ["Bits a value", `${nbit}, ${codebook}`],
    ["Clip", `± ${+clip.toPrecision(4)}`], ["Relative error", percent(frobenius_error)],
    ["File", size(model.bytes.total)], ["Source", source],
    ["Loaded", `${ago(model.loaded_at)}, in ${seconds(model.load_seconds)}`],
  ];
  const card = element("article", { class: "card", "data-model": name },
    element("div", { class: "headline" }, element("h3", {}, name), ...badge(file)),
    element("dl", { class: "facts" }, ...facts.map(([term, value]) =>
      element("div", {}, element("dt", {}, term), element("dd", {}, value)))),
    element("p", { class: "digest" }, element("span", { class: "quiet" }, "Digest "), element("code", {}, digest)));
  if (model.distribution.values.length) card.append(spread(model));
  return card;
}

function describeSource(text) {
  try {
    const source = JSON.parse(text);
    if (source?.name) return String(source.name);
  } catch { /* older files hold plain text */ }
  return text;
}

function badge({ state, message }) {
  if (state === "served") return [];
  const text = state === "changed"
    ? "the file has changed: reload to serve it"
    : `the file is broken now, the old one is served on: ${message}`;
  return [element("span", { class: `badge ${state}` }, text)];
}

/** Values as in the codebook, before row scales and the mean. */
function spread({ distribution, clip, nbit, bytes }) {
  const after = [[bytes.row_scale, "row scales"], [bytes.mean, "the mean"]].filter(([size]) => size).map(([, name]) => name);
  const outermost = distribution.shares[0] + distribution.shares.at(-1);
  const label = `Distribution of the stored values between minus and plus ${+clip.toPrecision(4)}; `
    + `${percent(outermost)} are the outermost`;
  return element("figure", {}, histogram(distribution, clip, label),
    element("figcaption", { class: "quiet" }, `Stored values of ${number(distribution.rows)} rows at ${bits(nbit)}`
      + `${after.length ? `, before ${after.join(" and ")}` : ""}; dashed: the clip, ± ${+clip.toPrecision(4)}`));
}
