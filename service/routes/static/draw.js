// Elements and charts. Text is set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An HTML element with attributes and children; strings become text. */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** A drawing that screen readers present as one image with a description. */
function picture(width, height, label, className, ...children) {
  return shape("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
    "aria-label": label, class: className }, ...children);
}

/** Parts of a whole, side by side: `parts` are {className, size}, `total` the size of the full width. */
export function stackedBar(parts, total, label) {
  let x = 0;
  const pieces = parts.map(({ className, size }) => {
    const width = 1000 * size / total;
    const piece = shape("rect", { x, y: 0, width, height: 10, class: className });
    x += width;
    return piece;
  });
  return picture(1000, 10, label, "bar", ...pieces);
}

/** Lines over time: `series` are {className, points: [[x from 0 to 1, value or null]]}. */
export function lines(series, label) {
  const values = series.flatMap(({ points }) => points.map(([, y]) => y).filter((y) => y !== null));
  const top = Math.max(...values, 0) * 1.1 || 1;
  const drawn = series.map(({ className, points }) => {
    let path = "", pen = false;
    for (const [x, y] of points) {
      if (y !== null) path += `${pen ? "L" : "M"}${(300 * x).toFixed(1)} ${(48 - 46 * y / top).toFixed(1)}h.01`;
      pen = y !== null;
    }
    return shape("path", { d: path, class: className });
  });
  return picture(300, 50, label, "lines", shape("path", { d: "M0 48H300", class: "axis" }), ...drawn);
}

/** One bar for each value, up or down from the middle. */
export function valueBars(values, label) {
  const top = Math.max(...values.map(Math.abs)) || 1;
  const width = 1000 / values.length;
  const bars = (sign) => values.map((value, i) => sign * value <= 0 ? "" :
    `M${(i * width).toFixed(2)} 50v${(-48 * value / top).toFixed(2)}h${(width * 0.8).toFixed(2)}V50z`).join("");
  return picture(1000, 100, label, "values",
    shape("path", { d: bars(1), class: "above" }), shape("path", { d: bars(-1), class: "below" }),
    shape("path", { d: "M0 50H1000", class: "axis" }));
}

/** A strip of cells, the lighter the lower the code. */
export function codeStrip(codes, levels, label) {
  const width = 1000 / codes.length;
  const paths = Array.from({ length: levels }, () => "");
  codes.forEach((code, i) => { paths[code] += `M${(i * width).toFixed(2)} 0h${width.toFixed(2)}v10h-${width.toFixed(2)}z`; });
  return picture(1000, 10, label, "codes", ...paths.map((d, code) =>
    shape("path", { d, "fill-opacity": (0.12 + 0.88 * code / (levels - 1)).toFixed(2) })));
}

/** A histogram of values, with the clip marked on both sides. */
export function histogram({ values, shares }, clip, label) {
  const bound = Math.max(clip, ...values.map(Math.abs)) * 1.12 || 1;
  const at = (value) => 500 + 500 * value / bound;
  const gaps = values.slice(1).map((value, i) => value - values[i]);
  const width = Math.max(6, Math.min(60, 0.9 * Math.min(...gaps, bound) * 500 / bound));
  const top = Math.max(...shares);
  const bars = values.map((value, i) => shape("rect", { x: (at(value) - width / 2).toFixed(1), width: width.toFixed(1),
    y: (96 - 90 * shares[i] / top).toFixed(1), height: (90 * shares[i] / top).toFixed(1) }));
  const marks = [-clip, clip].map((value) => shape("path", { d: `M${at(value).toFixed(1)} 0V96`, class: "clip" }));
  return picture(1000, 100, label, "histogram", ...bars, shape("path", { d: "M0 97H1000", class: "axis" }), ...marks);
}
