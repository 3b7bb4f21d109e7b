// Charts as plain SVG. Colours are classes of the style sheet; nothing is styled inline.

const NS = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const DECIMALS = [10, 1, 0.1, 0.01];

export function number(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  let places = digits;
  if (places === undefined) {
    places = DECIMALS.findIndex((limit) => size >= limit);
    if (places < 0) places = size ? 4 : 0;
    if (Number.isInteger(value)) places = 0;
  }
  return value.toLocaleString("en", { minimumFractionDigits: digits ?? 0, maximumFractionDigits: places });
}

export const percent = (value, digits = 1) => (value === null || value === undefined ? "–" : `${number(value * 100, digits)} %`);

// Round steps of 1, 2 or 5 so that at most `count` of them cover the range.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
  return found;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

// A line chart over time. `lines`: [{name, values, unit}], aligned with `times` (seconds), or with their index.
export function lineChart(holder, { times, lines, zero = true, area = false, digits, label, height = 190 }) {
  const width = Math.max(280, Math.round(holder.clientWidth || 560));
  const left = 44, right = 8, top = 8, bottom = 22;
  const present = lines.flatMap((line) => line.values).filter((value) => value !== null && value !== undefined);
  const legend = html("p", { class: "legend" });
  if (!present.length) {
    holder.replaceChildren(html("p", { class: "empty" }, "Nothing yet."));
    return;
  }
  let low = zero ? 0 : Math.min(...present), high = Math.max(...present);
  if (high - low < 1e-9) { high += Math.abs(high) * 0.1 || 1; if (!zero) low -= Math.abs(low) * 0.1; }
  else { const room = (high - low) * 0.08; high += room; if (!zero) low -= room; }
  const count = Math.max(...lines.map((line) => line.values.length));
  const x = (at) => left + (count > 1 ? at / (count - 1) : 1) * (width - left - right);
  const y = (value) => top + (1 - (value - low) / (high - low)) * (height - top - bottom);
  const described = lines.map((line) => `${line.name} ${number(line.values.at(-1), digits)}`).join(", ");
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${label}: now ${described}` });
  for (const at of ticks(low, high, 5)) {
    chart.append(svg("line", { class: "gridline", x1: left, x2: width - right, y1: y(at), y2: y(at) }));
    chart.append(svg("text", { x: left - 8, y: y(at) + 4, "text-anchor": "end" }, number(at)));
  }
  if (times && times.length > 1) {
    for (const at of [0, Math.floor((count - 1) / 2), count - 1]) {
      const anchor = at === 0 ? "start" : at === count - 1 ? "end" : "middle";
      chart.append(svg("text", { x: x(at), y: height - 4, "text-anchor": anchor }, clock(times[at])));
    }
  }
  lines.forEach((line, index) => {
    const runs = runsOf(line.values);
    for (const run of runs) {
      const points = run.map((at) => `${x(at).toFixed(1)},${y(line.values[at]).toFixed(1)}`);
      if (area && index === 0) {
        const base = `${x(run.at(-1)).toFixed(1)},${y(low)} ${x(run[0]).toFixed(1)},${y(low)}`;
        chart.append(svg("polygon", { class: "a0", points: `${points.join(" ")} ${base}` }));
      }
      if (run.length === 1) chart.append(svg("circle", { class: `d${index}`, cx: x(run[0]), cy: y(line.values[run[0]]), r: 2.5 }));
      else chart.append(svg("polyline", { class: `line l${index}`, points: points.join(" ") }));
    }
  });
  const show = (at) => {
    const when = times && times[at] !== undefined && at < count - 1 ? ` at ${clock(times[at])}` : "";
    legend.replaceChildren(...lines.map((line, index) =>
      html("span", { class: `k${index}` }, html("i"), `${line.name} `, html("b", {}, number(line.values[at], digits)))), html("span", {}, when));
  };
  show(count - 1);
  const cursor = svg("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  chart.append(cursor);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * width - left) / (width - left - right);
    const at = Math.min(count - 1, Math.max(0, Math.round(share * (count - 1))));
    cursor.setAttribute("x1", x(at)); cursor.setAttribute("x2", x(at)); cursor.setAttribute("visibility", "visible");
    show(at);
  });
  chart.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); show(count - 1); });
  holder.replaceChildren(legend, chart);
}

// Indices of the unbroken runs of values: a gap is not drawn over.
function runsOf(values) {
  const runs = [];
  values.forEach((value, at) => {
    if (value === null || value === undefined) return;
    if (runs.length && runs.at(-1).at(-1) === at - 1) runs.at(-1).push(at);
    else runs.push([at]);
  });
  return runs;
}

export function sparkline(values) {
  const width = 130, height = 26;
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "spark", "aria-hidden": "true" });
  if (values.length > 1) {
    const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
    const points = values.map((value, at) =>
      `${(2 + at / (values.length - 1) * (width - 6)).toFixed(1)},${(height - 4 - (value - low) / span * (height - 8)).toFixed(1)}`);
    chart.append(svg("polyline", { class: "line l0", points: points.join(" ") }));
    const [cx, cy] = points.at(-1).split(",");
    chart.append(svg("circle", { class: "d0", cx, cy, r: 2.5 }));
  }
  return chart;
}

// Predicted against observed: on the dashed line a probability means what it says.
export function calibrationChart(holder, bins) {
  if (!bins.length) {
    holder.replaceChildren(html("p", { class: "empty" }, "No answer has matured yet."));
    return;
  }
  const width = Math.max(280, Math.round(holder.clientWidth || 560)), height = 212, left = 44, right = 10, top = 8, bottom = 34;
  const most = Math.min(1, Math.max(...bins.flatMap((bin) => [bin.predicted, bin.high])) * 1.05);
  const x = (value) => left + value / most * (width - left - right);
  const y = (value) => top + (1 - Math.min(value, most) / most) * (height - top - bottom);
  const worst = Math.max(...bins.map((bin) => Math.abs(bin.predicted - bin.observed)));
  const label = `Calibration in ${bins.length} bins; largest difference of predicted and observed rate ${percent(worst)}`;
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const at of ticks(0, most, 5)) {
    chart.append(svg("line", { class: "gridline", x1: left, x2: width - right, y1: y(at), y2: y(at) }));
    chart.append(svg("text", { x: left - 8, y: y(at) + 4, "text-anchor": "end" }, percent(at, 0)));
    chart.append(svg("text", { x: x(at), y: height - 18, "text-anchor": "middle" }, percent(at, 0)));
  }
  chart.append(svg("text", { x: (left + width) / 2, y: height - 3, "text-anchor": "middle" }, "predicted; vertical: opened"));
  chart.append(svg("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(most), y2: y(most) }));
  for (const bin of bins) {
    chart.append(svg("line", { class: "band", x1: x(bin.predicted), x2: x(bin.predicted), y1: y(bin.low), y2: y(bin.high) }));
    const dot = svg("circle", { class: "d0", cx: x(bin.predicted), cy: y(bin.observed), r: 4 });
    dot.append(svg("title", {}, `predicted ${percent(bin.predicted)}, opened ${percent(bin.observed)} of ${bin.examples}`));
    chart.append(dot);
  }
  holder.replaceChildren(chart);
}

// A rate with its interval on a scale from 0 to `most`.
export function intervalBar(low, rate, high, most) {
  const width = 190, height = 22, x = (value) => 4 + Math.min(1, value / most) * (width - 8);
  const label = `${percent(rate)}, between ${percent(low)} and ${percent(high)}`;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "interval", role: "img", "aria-label": label },
    svg("rect", { class: "track", x: 4, y: 9, width: width - 8, height: 4, rx: 2 }),
    svg("rect", { class: "fill", x: x(low), y: 5, width: Math.max(2, x(high) - x(low)), height: 12, rx: 3 }),
    svg("circle", { class: "mark", cx: x(rate), cy: 11, r: 4 }));
}
