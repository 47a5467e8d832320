// Rates of the last five minutes: differences between samples of the counters.

import { byId, element, lines } from "./draw.js";
import { number, percent, seconds } from "./words.js";

const SPAN = 300;
const WINDOW = 5;

let samples = [];

export const hasSamples = () => samples.length > 0;

export function forget() {
  samples = [];
}

/** Add samples; counters that decreased mean that the server was restarted. */
export function addSamples({ samples: older, now }) {
  const last = samples.at(-1);
  if (last && total(now) < total(last)) samples = [];
  for (const sample of [...older, now]) {
    if (!samples.length || sample.time > samples.at(-1).time) samples.push(sample);
  }
  samples = samples.filter(({ time }) => time > now.time - SPAN - WINDOW);
}

export function showTraffic(bounds) {
  const points = rates(bounds);
  const latest = points.at(-1);
  const quiet = total(samples.at(-1)) === 0;
  byId("traffic-note").textContent = quiet
    ? "No traffic yet"
    : "All workers, the last five minutes";
  const place = byId("rates");
  place.replaceChildren(
    tile("Requests", perSecond(latest?.requests), points, ["requests"], peak(points, "requests", perSecond)),
    tile("Tokens", perSecond(latest?.tokens), points, ["tokens"], peak(points, "tokens", perSecond)),
    tile("Latency p50", time(latest?.p50), points, ["p50"], peak(points, "p50", time)),
    tile("Latency p99", time(latest?.p99), points, ["p99"], peak(points, "p99", time)),
    tile("Found", share(latest?.hit), points, ["hit", "oov"], `unknown ${share(latest?.oov)}`),
    tile("Rejected", perSecond(latest?.rejected), points, ["rejected"], `${number(samples.at(-1).rejected)} in all`),
  );
}

const total = (sample) => sample.durations.reduce((sum, count) => sum + count, 0);
const perSecond = (value) => value === undefined ? "–" : `${number(value)}/s`;
const time = (value) => value == null ? "–" : seconds(value);
const share = (value) => value == null ? "–" : percent(value);

/** The maximum of a chart, as text, as its lines have no scale. */
function peak(points, key, show) {
  const values = points.map((point) => point[key]).filter((value) => value != null);
  return values.length ? `at most ${show(Math.max(...values))}` : "";
}

function tile(name, figure, points, keys, note = "") {
  const end = samples.at(-1).time;
  const series = keys.map((key, i) => ({
    className: `line-${i}`, points: points.map((point) => [1 - (end - point.time) / SPAN, point[key] ?? null]),
  }));
  return element("div", { class: "tile", role: "group", "aria-label": `${name}: ${figure}` },
    element("span", { class: "name" }, name), element("span", { class: "figure", id: `rate-${keys[0]}` }, figure),
    element("span", { class: "quiet" }, note), lines(series, `${name} over the last five minutes: now ${figure}; ${note}`));
}

function rates(bounds) {
  const points = [];
  let from = 0;
  for (let to = 1; to < samples.length; to++) {
    while (samples[to].time - samples[from + 1].time >= WINDOW) from++;
    const [a, b] = [samples[from], samples[to]];
    const length = b.time - a.time;
    if (length < 0.5) continue;
    const durations = b.durations.map((count, i) => count - a.durations[i]);
    const [found, unknown] = [b.found - a.found, b.unknown - a.unknown];
    const tokens = found + unknown;
    points.push({
      time: b.time, requests: (total(b) - total(a)) / length, tokens: tokens / length,
      p50: quantile(durations, bounds, 0.5), p99: quantile(durations, bounds, 0.99),
      hit: tokens ? found / tokens : null, oov: tokens ? unknown / tokens : null,
      rejected: (b.rejected - a.rejected) / length,
    });
  }
  return points;
}

/** A quantile from counts by upper bound, interpolated linearly. */
function quantile(counts, bounds, share) {
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (!all) return null;
  let before = 0;
  for (let i = 0; i < bounds.length; i++) {
    if (before + counts[i] >= share * all) {
      const low = i ? bounds[i - 1] : 0;
      return low + (bounds[i] - low) * (share * all - before) / counts[i];
    }
    before += counts[i];
  }
  return bounds.at(-1);
}
