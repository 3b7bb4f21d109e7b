// The page: takes the state once a second and draws what is visible. It asks for one user only when told to.

import { calibrationChart, html, intervalBar, lineChart, number, percent, sparkline, svg } from "./charts.js";
import { search } from "./user.js";

const $ = (id) => document.getElementById(id);
let state = null, drawn = 0, last = 0;

// -- theme: the system's, or the one that was chosen here

const wanted = matchMedia("(prefers-color-scheme: dark)");
const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
function paint() {
  const dark = (stored() ?? (wanted.matches ? "dark" : "light")) === "dark";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const path = dark ? "M12 4V2m0 20v-2m8-8h2M2 12h2m13.7-5.7 1.4-1.4M4.9 19.1l1.4-1.4m0-11.4L4.9 4.9m14.2 14.2-1.4-1.4M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Z" : "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z";
  $("theme").replaceChildren(svg("svg", { viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-linecap": "round", "aria-hidden": "true" }, svg("path", { d: path })));
}
$("theme").addEventListener("click", () => {
  try { localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark"); } catch { /* private window */ }
  paint();
});
wanted.addEventListener("change", paint);
paint();

// -- small helpers

const row = (...cells) => html("tr", {}, cells);
const th = (text, kind) => html("th", { scope: "col", class: kind }, text);
const td = (content, kind) => html("td", { class: kind }, content ?? "–");
const instant = (ms) => (ms ? new Date(ms).toISOString().slice(0, 19).replace("T", " ") : "–");

function table(id, heads, rows, empty) {
  if (!rows.length) return $(id).replaceChildren(html("tbody", {}, row(td(empty, "soft"))));
  $(id).replaceChildren(html("thead", {}, row(...heads)), html("tbody", {}, rows));
}

// -- sections

function tiles(totals) {
  const shown = [
    ["events / s", number(totals.events_per_s, totals.events_per_s >= 100 ? 0 : 1)],
    ["p50 · p99, ms", totals.p50_ms === null ? "–" : `${number(totals.p50_ms, 0)} · ${number(totals.p99_ms, 0)}`],
    ["waiting", number(totals.lag, 0)],
    ["users", number(totals.users, 0)],
    ["decided to send", number(totals.sends, 0)],
    ["decided not to", number(totals.suppressed, 0)],
    ["opened", number(totals.opened, 0)],
    ["dead letters", number(totals.dead_letters, 0)],
  ];
  $("tiles").replaceChildren(...shown.map(([name, value]) => html("div", { class: "tile" }, html("b", {}, value), html("span", {}, name))));
}

function reasons(found) {
  const most = Math.max(1, ...found.map(([, count]) => count));
  $("reasons").replaceChildren(...(found.length ? found.map(([name, count]) =>
    html("div", { class: "hbar" }, html("span", {}, name.replaceAll("_", " ")),
      html("progress", { max: most, value: count, "aria-label": `${name}: ${count}` }), html("span", { class: "n" }, number(count, 0))))
    : [html("p", { class: "empty" }, "Everything was sent.")]));
}

function recent(found) {
  table("recent", [th("decided (event time)"), th("campaign"), th("what"), th("variant", "optional"), th("P(open)", "n")],
    found.slice(0, 8).map((one) => row(td(instant(one.at_ms), "soft"), td(one.campaign, "name"),
      td(one.action === "send" ? html("span", { class: "good" }, "send") : html("span", { class: "soft" }, `no: ${one.reason.replaceAll("_", " ")}`)),
      td(one.variant || "–", "optional"), td(one.open_probability ? percent(one.open_probability, 0) : "–", "n"))), "No decision yet.");
}

function segments(found) {
  const most = Math.max(1, ...found.map((one) => one.members ?? 0));
  table("segment-table", [th("segment"), th("users", "n"), th("", "optional"), th("lately"), th("entered", "n"), th("left", "n")],
    found.map((one) => row(td(one.name, "name"), td(number(one.members, 0), "n"),
      td(html("div", { class: "share" }, html("progress", { max: most, value: one.members ?? 0, "aria-hidden": "true" })), "optional"),
      td(sparkline(one.series)), td(number(one.entered, 0), "n"), td(number(one.left, 0), "n"))), "No segment has members yet.");
}

function personas(found) {
  $("personas").textContent = found.length ? `Personas: ${found.map((one) => `${one.name} ${percent(one.share, 0)}`).join(", ")}.` : "";
}

// The cards of the models are made once: charts are drawn into them anew.
const TALL = 250; // as the calibration beside it, with its two lines of text

function models(found, served, unsigned) {
  const holder = $("models");
  if (!found.length) {
    const why = unsigned ? "Snapshots were found that are not signed with this console's NUDGE_SECRET." : "No model has been published yet.";
    holder.replaceChildren(html("article", { class: "card" }, html("p", { class: "empty" }, why)));
    return;
  }
  for (const model of found) {
    const id = `model-${model.name}`;
    if (!$(id)) {
      if (!holder.querySelector("[data-model]")) holder.replaceChildren();
      holder.append(html("div", { id, "data-model": true }, html("p", { class: "note" }), html("div", { class: "grid three" },
        html("article", { class: "card" }, html("h3", {}, "AUC, progressive"), html("div", { class: "chart" })),
        html("article", { class: "card" }, html("h3", {}, "Log loss, progressive"), html("div", { class: "chart" })))));
    }
    const metrics = model.metrics, charts = $(id).querySelectorAll(".chart");
    const promoted = metrics.promotions ? ` ${number(metrics.promotions, 0)} promotions.` : "";
    const pinned = model.pinned ? ` Pinned to version ${number(model.pinned.version, 0)} by ${model.pinned.by}.` : "";
    $(id).querySelector("p").textContent = `${model.name}, version ${number(model.version, 0)}: learned from ${number(metrics.examples, 0)} answers; `
      + `predicted over opened ${number(metrics.calibration_ratio, 3)}; drift alarms ${number(metrics.drift_detections ?? 0, 0)}; `
      + `${number(model.kept, 0)} versions to go back to.${promoted}${pinned}`;
    const course = (name, metric) => ({ name, values: model.series[metric] });
    lineChart(charts[0], { lines: [course("all", "auc"), course("lately", "recent_auc")], zero: false, digits: 3, label: "AUC", height: TALL });
    lineChart(charts[1], { lines: [course("all", "log_loss"), course("constant", "log_loss_constant"), course("lately", "recent_log_loss")],
      zero: false, digits: 3, label: "Log loss", height: TALL });
  }
  if (!$("served")) {
    holder.querySelector(".grid").append(html("article", { class: "card", id: "served" }, html("h3", {}, "Calibration of the scores that users met"),
      html("div", { class: "chart" }), html("p", { class: "note" })));
  }
  calibrationChart($("served").querySelector(".chart"), served.calibration);
  $("served").querySelector("p").textContent = `The newest ${number(served.examples, 0)} answers in ten bins of equal size, with 95 % intervals; AUC over them ${number(served.auc, 3)}.`;
}

function experiments(found) {
  const most = Math.max(0.05, ...found.flatMap((one) => one.variants.filter((arm) => arm.matured).map((arm) => arm.high)));
  const rows = found.flatMap((one) => one.variants.map((arm, at) => row(td(at ? "" : one.campaign, "name"), td(arm.name || "–"),
    td(number(arm.decided, 0), "n"), td(number(arm.matured, 0), "n"), td(number(arm.opened, 0), "n"), td(percent(arm.rate), "n"),
    td(arm.matured ? intervalBar(arm.low, arm.rate, arm.high, most) : html("span", { class: "soft" }, "no answer yet")))));
  table("experiment-table", [th("campaign"), th("variant"), th("decided", "n"), th("matured", "n"), th("opened", "n"), th("rate", "n"),
    th(`0 to ${percent(most, 0)}`)], rows, "Nothing has been sent yet.");
}

function policies(found, processes) {
  const applied = (one) => (one ? `${one.policy} ${one.serial}${one.restores ? `, back to ${one.restores}` : ""}, ${instant(one.applied_ms)}` : "from a file");
  table("policies", [th("version"), th("running", "n"), th("applied"), th("decisions", "n"), th("newest decision", "optional")], found.map((one) =>
    row(td([html("code", {}, one.version || "–"), one.in_force ? html("span", { class: "pill good" }, "in force") : null]),
      td(number(one.running, 0), "n"), td(applied(one.applied), "soft"), td(number(one.decisions, 0), "n"), td(instant(one.last_ms), "soft optional"))),
    "No version is known yet.");
  table("processes", [th("endpoint"), th("state"), th("policy", "optional"), th("users", "n"), th("lag", "n")], processes.map((one) =>
    row(td(one.url.replace(/^https?:\/\//, "")), td(one.problem ? html("span", { class: "bad" }, one.problem)
      : one.ready ? html("span", { class: "good" }, "ready") : html("span", { class: "warn" }, "not ready")),
      td(one.policy ? html("code", {}, one.policy) : "–", "optional"), td(one.kind === "worker" ? number(one.rows, 0) : "–", "n"), td(number(one.lag, 0), "n"))),
    "No process was named (NUDGE_WORKER_URLS).");
}

function problems(found) {
  const lines = [];
  if (found.feed.problem && found.feed.problem !== "connecting") lines.push(`Kafka: ${found.feed.problem}.`);
  if (found.feed.behind > 5000) lines.push(`Catching up with the topics: ${number(found.feed.behind, 0)} records to go.`);
  if (found.feed.unreadable) lines.push(`${number(found.feed.unreadable, 0)} records could not be read.`);
  const silent = found.processes.filter((one) => one.problem);
  if (silent.length) lines.push(`${silent.length} of ${found.processes.length} processes do not answer: figures are of the others.`);
  $("problem").hidden = !lines.length;
  $("problem").textContent = lines.join(" ");
}

function draw() {
  if (!state || document.hidden) return;
  drawn += 1;
  problems(state);
  tiles(state.totals);
  const line = (name, values) => ({ name, values });
  lineChart($("c-events"), { times: state.times, lines: [line("events", state.series.events)], area: true, label: "Events a second" });
  lineChart($("c-latency"), { times: state.times, lines: [line("p50", state.series.p50_ms), line("p99", state.series.p99_ms)], digits: 0, label: "Milliseconds from event to decision" });
  lineChart($("c-decisions"), { times: state.times, lines: [line("send", state.series.sends), line("do not", state.series.suppressed)], digits: 0, label: "Decisions a second" });
  reasons(state.reasons);
  recent(state.recent);
  segments(state.segments);
  personas(state.personas);
  models(state.models, state.served, state.unsigned_snapshots);
  experiments(state.experiments);
  policies(state.policies, state.processes);
  $("token-label").hidden = !state.search.needs_token;
  $("search-note").textContent = state.search.rows ? "Asks the worker that has the user's row, and reads their newest records."
    : "Reads the user's newest records. With NUDGE_ADMIN_TOKEN the console could ask their worker, too.";
  document.documentElement.dataset.drawn = drawn;
}

// -- the stream

function status(text, kind) {
  $("status-text").textContent = text;
  $("dot").className = `dot ${kind}`;
}
function take(text) {
  const found = JSON.parse(text);
  if (!found.totals) return;
  state = found;
  last = Date.now();
  status("live", "live");
  draw();
}
const stream = new EventSource("/api/stream");
stream.onmessage = (event) => take(event.data);
stream.onerror = () => status("reconnecting", "bad");
setInterval(() => { if (last && Date.now() - last > 6000) status("no news", "bad"); }, 2000);
addEventListener("resize", () => requestAnimationFrame(draw));
document.addEventListener("visibilitychange", draw);
search();
