// One model: its memory by part, facts, distribution of values, and a form to look tokens up.

import { byId, element, histogram } from "./draw.js";
import { offerModel } from "./lookup.js";
import { ask } from "./server.js";
import { breakdown, factor, showFactor } from "./totals.js";
import { ago, bits, number, percent, seconds } from "./words.js";

const PREFIX = "#model=";
const STATES = { served: "unchanged", changed: "changed since it was loaded; reload to serve it", broken: "broken; the loaded one stays" };

let shown = {};

/** The name in the URL, or that of the only model. */
export function selected(models) {
  if (!location.hash.startsWith(PREFIX)) return models.length === 1 ? models[0].name : undefined;
  try {
    return decodeURIComponent(location.hash.slice(PREFIX.length));
  } catch {
    return location.hash.slice(PREFIX.length);
  }
}

/** Show a model, and request it if it is another one or changed. */
export async function showModel(name, models) {
  byId("model").hidden = name === undefined;
  byId("close").hidden = models.length === 1;
  const listed = models.find((model) => model.name === name);
  const wanted = JSON.stringify([listed, models.length > 1]);
  if (shown.name === name && shown.wanted === wanted) return;
  const other = shown.name !== name;
  const now = shown = { name, wanted };
  if (other) {
    byId("model-title").textContent = name ?? "";
    byId("model-shape").textContent = byId("model-factor").textContent = "";
    byId("model-body").hidden = true;
    notice("");
  }
  if (name === undefined) return;
  try {
    const model = await ask(`dashboard/models/${encodeURIComponent(name)}`);
    if (shown !== now) return;
    fill(model, models.length > 1);
    byId("model-body").hidden = false;
  } catch (error) {
    if (shown !== now) return;
    if (error.status !== 404) shown = { name };
    notice(error.status === 404 ? "No model of this name is loaded." : error.message);
    byId("model-body").hidden = true;
  }
  if (other && location.hash.startsWith(PREFIX)) {
    byId("model").scrollIntoView();
    byId("model-title").focus({ preventScroll: true });
  }
}

function notice(text) {
  byId("model-notice").textContent = text;
  byId("model-notice").hidden = !text;
}

function fill(model, several) {
  const { rows, dim, nbit, bytes, codebook_kind, clip, frobenius_error, metadata, file, device, digest } = model;
  const facts = {
    "Bits a value": `${nbit}, ${codebook_kind}`, Clip: `± ${+clip.toPrecision(4)}`, "Relative error": percent(frobenius_error),
    Vocabulary: model.has_vocabulary ? "yes" : "no, row numbers only",
    Tokenizer: model.has_tokenizer ? "yes, takes texts" : "no", Device: device,
    Source: metadata.source ? describeSource(metadata.source) : "not recorded",
    Loaded: `${ago(model.loaded_at)}, in ${seconds(model.load_seconds)}`, File: STATES[file.state], Digest: element("code", {}, digest),
  };
  byId("model-shape").textContent = `${number(rows)} × ${dim} at ${bits(nbit)}`;
  byId("model-factor").textContent = showFactor(factor({ ...model, bytes: bytes.total }));
  notice(file.state === "broken" ? `The file cannot be read: ${file.message}` : "");
  byId("model-memory").replaceChildren(...breakdown(model));
  byId("model-facts").replaceChildren(...Object.entries(facts).map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value))));
  byId("model-values").replaceChildren(model.distribution.values.length ? spread(model) : "");
  offerModel(model, several);
}

function describeSource(text) {
  try {
    const source = JSON.parse(text);
    if (source?.name) return String(source.name);
  } catch { /* older files hold plain text */ }
  return text;
}

/** Values of the codebook, times column scales, before row scales and the mean. */
function spread({ distribution, clip, nbit, bytes }) {
  const after = [[bytes.row_scale, "row scales"], [bytes.mean, "the mean"]].filter(([size]) => size).map(([, name]) => name);
  const outermost = distribution.shares[0] + distribution.shares.at(-1);
  const label = `Distribution of the stored values between minus and plus ${+clip.toPrecision(4)}; `
    + `${percent(outermost)} are the outermost`;
  return element("figure", {}, histogram(distribution, clip, label),
    element("figcaption", { class: "quiet" }, `Stored values of ${number(distribution.rows)} rows at ${bits(nbit)}`
      + `${after.length ? `, before ${after.join(" and ")}` : ""}; dashed: the clip, ± ${+clip.toPrecision(4)}`));
}
