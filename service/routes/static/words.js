// Numbers, sizes and times as text.

export function size(count) {
  for (const unit of ["B", "KB", "MB", "GB", "TB"]) {
    if (count < 1000 || unit === "TB") return `${+count.toPrecision(3)} ${unit}`;
    count /= 1000;
  }
}

export function number(value) {
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });
}

export const bits = (nbit) => nbit === 1 ? "1 bit" : `${nbit} bits`;

export function seconds(value) {
  if (value >= 1) return `${+value.toPrecision(3)} s`;
  return value >= 0.001 ? `${+(value * 1e3).toPrecision(3)} ms` : `${Math.round(value * 1e6)} µs`;
}

export function percent(share) {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 2 : 1)} %`;
}

export function ago(time) {
  const past = Math.max(0, Date.now() / 1000 - time);
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    const count = Math.floor(past / length);
    if (count) return `${count} ${unit}${count > 1 ? "s" : ""} ago`;
  }
  return "just now";
}
