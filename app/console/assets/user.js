// One user: profile, segments clause by clause, campaigns and gates, and what happened, when asked for.

import { html, number, percent } from "./charts.js";

const $ = (id) => document.getElementById(id);
const SHARES = 8;

export function search() {
  $("search").addEventListener("submit", async (event) => {
    event.preventDefault();
    const result = $("user-result");
    result.replaceChildren(html("p", { class: "empty" }, "Looking…"));
    const headers = { "Content-Type": "application/json" };
    if ($("token").value) headers.Authorization = `Bearer ${$("token").value}`;
    try {
      const response = await fetch("/api/user", { method: "POST", headers, body: JSON.stringify({ user: $("user-id").value.trim() }) });
      const found = await response.json();
      if (response.ok) show(result, found);
      else result.replaceChildren(html("p", { class: "bad" }, found.error));
    } catch (error) {
      result.replaceChildren(html("p", { class: "bad" }, `The console does not answer (${error.name}).`));
    }
  });
}

function show(result, found) {
  const parts = found.problems.map((problem) => html("p", { class: "warn" }, problem));
  if (!found.found) parts.push(html("p", { class: "empty" }, "No such user on the workers, and no record of one in the topics."));
  if (found.view) parts.push(...view(found.view));
  if (found.life && found.life.moments.length) {
    parts.push(html("h4", {}, found.life.whole ? "What happened" : "What happened lately (older records were not looked at)"));
    parts.push(html("ul", { class: "life", tabindex: 0 }, found.life.moments.map((moment) => happened(moment, found.shares ?? {}))));
  }
  result.replaceChildren(...parts);
}

const instant = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

function span(ms) {
  const units = [["d", 86400000], ["h", 3600000], ["m", 60000], ["s", 1000]];
  const found = [];
  let rest = Math.max(0, ms);
  for (const [name, size] of units) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count) found.push(`${count}${name}`);
    if (found.length === 2) break;
  }
  return found.join(" ") || "0s";
}

function view(user) {
  const profile = user.profile, now = user.now_ms;
  const ago = (ms) => (ms ? `${span(now - ms)} ago` : "never");
  const facts = [
    ["events", `${number(profile.events, 0)}, last ${ago(profile.seen_ms)}`],
    ["first seen", ago(profile.first_ms)],
    ["consent", profile.consent + (profile.opted_out.length ? `, not ${profile.opted_out.join(", ")}` : "")],
    ["notifications", `${profile.sent} sent, ${profile.opened} opened, ${profile.clicked} clicked, ${profile.dismissed} dismissed`],
    ["orders", `${profile.orders}, revenue ${number(profile.revenue, 2)}`],
    ["favourites", profile.favourites.join(", ") || "none yet"],
    ...(profile.persona ? [["persona", profile.persona]] : []),
    ["device, zone", [profile.device, profile.timezone].filter(Boolean).join(", ") || "unknown"],
    ["policy, model", `${user.policy_version}, ${user.model} version ${user.model_version}`],
    ["traits", Object.entries(profile.traits).map(([name, value]) => `${name}: ${value}`).join(", ") || "none"],
  ];
  const inside = user.segments.filter((one) => one.inside), outside = user.segments.filter((one) => !one.inside);
  return [
    html("dl", { class: "facts" }, facts.map(([name, value]) => html("div", { class: name === "traits" ? "wide" : "" }, html("dt", {}, name), html("dd", {}, value)))),
    html("h4", {}, `In ${inside.length} of ${user.segments.length} segments`),
    ...inside.map((one) => segment(one, `for ${span(now - one.since_ms)}`)),
    html("h4", {}, "Not in"),
    ...outside.map((one) => segment(one, why(one.clause))),
    html("h4", {}, "If its trigger came now"),
    ...user.campaigns.map(campaign),
  ];
}

// The tests that decided, in a line; the negation of one under a "not" is written out.
function deciding(clause, negated = false) {
  if (!clause) return [];
  if (clause.how && clause.how !== "test") return clause.parts.flatMap((part) => deciding(part, negated !== (clause.how === "not")));
  return clause.decided ? [{ ...clause, text: negated ? `not ${clause.text}` : clause.text, holds: negated ? !clause.holds : clause.holds }] : [];
}
const why = (clause) => deciding(clause).map((test) => `${test.text} ${read(test)}`).join("; ");

function read(test) {
  const readings = test.readings ?? [];
  if (readings.length === 1 && test.text.includes(readings[0].text)) return `[${readings[0].value}]`;
  return readings.map((one) => `[${one.text} = ${one.value}]`).join(" ");
}

function segment(one, note) {
  return html("details", {}, html("summary", {}, html("b", { class: one.inside ? "good" : "" }, one.name), html("span", { class: "soft" }, note)),
    one.description ? html("p", { class: "note" }, one.description) : null,
    one.clause ? html("ul", { class: "clauses" }, clauses(one.clause)) : html("p", { class: "note" }, "The policy gives no text for it."));
}

function clauses(clause) {
  const how = clause.how ?? "test";
  const sign = html("span", { class: clause.holds ? "good" : "bad", "aria-label": clause.holds ? "holds" : "does not hold" }, clause.holds ? "✓ " : "✗ ");
  const text = how === "test" || how === "segment" ? html("code", {}, clause.text) : { all: "all of", any: "any of", not: "not" }[how];
  return html("li", { class: clause.decided ? "" : "undecided" }, sign, text, html("span", { class: "read code" }, ` ${how === "test" ? read(clause) : ""}`),
    clause.parts && clause.parts.length ? html("ul", { class: "clauses" }, clause.parts.map(clauses)) : null);
}

function campaign(one) {
  const gates = one.gates.map((gate) => html("li", {}, html("span", { class: gate.open ? "good" : "bad" }, gate.open ? "✓ " : "✗ "),
    gate.name.replaceAll("_", " "), html("span", { class: "read" }, ` ${gate.detail}`)));
  return html("details", {}, html("summary", {}, html("b", {}, one.name), html("span", { class: one.verdict === "send" ? "good" : "soft" }, one.verdict.replaceAll("_", " "))),
    html("p", { class: "note" }, `${one.trigger}; score ${number(one.score, 3)} = ${percent(one.open_probability)} · ${number(one.value)} − (1 + ${percent(one.opt_out_risk)}) · ${number(one.cost)}`),
    one.audience ? html("ul", { class: "clauses" }, clauses(one.audience)) : null,
    html("ul", { class: "clauses" }, gates), shares(one.shares));
}

function shares(found) {
  if (!found || !found.length) return null;
  const rows = found.slice(0, SHARES + 1).map((one) => [one.feature, number(one.value), one.log_odds]);
  const rest = found.slice(SHARES + 1);
  if (rest.length) rows.push([`${rest.length} others`, "", rest.reduce((sum, one) => sum + one.log_odds, 0)]);
  return html("table", {}, html("thead", {}, html("tr", {}, ["what P(open) is made of", "value", "log-odds"].map((name, at) => html("th", { scope: "col", class: at ? "n" : "" }, name)))),
    html("tbody", {}, rows.map(([name, value, share]) => html("tr", {}, html("td", {}, name), html("td", { class: "n" }, value),
      html("td", { class: `n ${share >= 0 ? "good" : "bad"}` }, `${share >= 0 ? "+" : ""}${number(share, 3)}`)))));
}

function happened(moment, byDecision) {
  const line = [html("span", {}, moment.title), " ", html("span", { class: "soft" }, moment.detail ?? "")];
  const made = moment.decision;
  let body = html("div", {}, line);
  if (made) {
    const facts = [`id ${moment.id}`, `policy ${made.policyVersion ?? "–"}`, `trigger ${made.trigger ?? "–"}`];
    if (made.modelVersion !== undefined) facts.push(`model version ${made.modelVersion}`);
    if (made.value !== undefined) facts.push(`score ${number(made.value, 3)}`);
    body = html("details", {}, html("summary", {}, line), html("p", { class: "note" }, facts.join(" · ")),
      made.content ? html("p", { class: "note" }, `“${made.content.body}”`) : null, shares(byDecision[moment.id]));
  }
  return html("li", { class: `k-${moment.kind}` }, html("time", {}, instant(moment.at_ms)), body);
}
