"""Explanations on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from app.core.explain import CampaignView, SegmentView, Share, UserView
from app.core.explain_choice import VariantView
from app.core.explain_gates import REASON_TEXTS
from app.core.expression_explain import Clause, deciding, format_age
from app.explain.choice_report import decision_choice, user_variants
from app.explain.items_report import items_report
from app.explain.life import Life
from schemas.decisions import Decision

SHARES_SHOWN: Final = 8
MOMENTS_SHOWN: Final = 15
_HOW: Final = {"all": "all of", "any": "any of", "not": "not", "segment": "segment", "test": ""}


def user_report(view: UserView, partition: int) -> RenderableType:
    """A user: profile, segments with their clauses, and what could be said now."""
    head = Text.assemble(
        (view.user, "bold"),
        f"  at {_instant(view.now_ms)}, partition {partition}, policy {view.policy_version}, ",
        f"model {view.model} version {view.model_version}",
    )
    parts: list[RenderableType] = [head, Text(), _profile(view), Text()]
    inside = [one for one in view.segments if one.inside]
    outside = [one for one in view.segments if not one.inside]
    parts.append(Text(f"in {len(inside)} of {len(view.segments)} segments", style="bold"))
    parts += [_inside(one, view.now_ms) for one in inside]
    if outside:
        parts += [Text(), Text("not in", style="bold"), _outside(outside)]
    parts += [Text(), Text("if its trigger came now", style="bold"), _campaigns(view.campaigns)]
    if view.campaigns:
        best = max(view.campaigns, key=lambda one: one.score)
        parts += [
            Text(),
            Text(f"P(open) of {best.name}: {best.open_probability:.1%}", style="bold"),
            shares(best.shares),
        ]
    parts += user_variants(view.campaigns)
    parts += items_report(view)
    if view.timers:
        parts += [Text(), Text("waiting for the clock", style="bold"), _timers(view)]
    return Group(*parts)


def decision_report(
    made: Decision,
    contributions: Sequence[Share],
    problem: str,
    now_version: int,
    arms: Sequence[VariantView] = (),
    arms_version: int = 0,
) -> RenderableType:
    """A decision: what, why, and what the score was made of."""
    what = "send" if made.action == "send" else f"not sent: {made.reason}"
    table = _pairs(
        ("decision", made.id),
        ("what", f"{what}  ({REASON_TEXTS.get(made.reason, '')})" if made.reason else what),
        ("campaign", f"{made.campaign} ({made.category})" + (", transactional" if made.transactional else "")),
        ("decided", _instant(made.decided_ms)),
        ("trigger", made.trigger + (f" {made.trigger_key}" if made.trigger_key else "")),
        ("caused by", f"events offset {made.source_offset}" if made.source_offset >= 0 else "the clock"),
        ("policy", made.policy_version),
    )
    if made.action == "send":
        table.add_row("variant", f"{made.variant}, chosen with probability {made.propensity:.3g}")
        if made.content is not None:
            table.add_row("says", escape(f"{made.content.title} · {made.content.body}"))
        if made.items:
            table.add_row("products", escape(", ".join(f"{item} ({source})" for item, source in made.items)))
        table.add_row("P(open)", f"{made.open_probability:.2%} by model version {made.model_version}")
        table.add_row("score", f"{made.value:.4g} = P(open) · value - (1 + opt-out risk) · cost")
    elif made.open_probability:
        table.add_row("P(open)", f"{made.open_probability:.2%}, score {made.value:.4g}")
    parts: list[RenderableType] = [table, *decision_choice(made, arms, arms_version)]
    if contributions:
        parts += [Text(), Text("what the score is made of", style="bold"), shares(contributions)]
        if now_version != made.model_version:
            parts.append(
                Text(f"weights of model version {now_version}: those of {made.model_version} are gone", style="dim")
            )
    elif problem:
        parts.append(Text(problem, style="dim"))
    return Group(*parts)


def life_report(life: Life) -> RenderableType:
    """The newest moments."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for moment in life.moments[:MOMENTS_SHOWN]:
        style = {"decision": "bold", "segment": "cyan"}.get(moment.kind, "")
        table.add_row(_instant(moment.at_ms), Text(moment.title, style=style), Text(moment.detail, style="dim"))
    title = "newest in the topics" if life.whole else "newest in the topics (older records were not looked at)"
    return Group(Text(), Text(title, style="bold"), table)


def shares(found: Sequence[Share]) -> Table:
    """Contributions in log-odds, the largest first."""
    table = Table(box=None, pad_edge=False)
    table.add_column("feature")
    table.add_column("value", justify="right")
    table.add_column("log-odds", justify="right")
    for share in found[: SHARES_SHOWN + 1]:
        table.add_row(escape(share.feature), f"{share.value:.4g}", f"{share.log_odds:+.3f}")
    rest = found[SHARES_SHOWN + 1 :]
    if rest:
        table.add_row(f"{len(rest)} others", "", f"{sum(share.log_odds for share in rest):+.3f}")
    return table


def clause_line(clause: Clause) -> Text:
    """A clause with its sign and what it read."""
    text = Text.assemble(("✓ " if clause.holds else "✗ ", "green" if clause.holds else "red"))
    if clause.how == "test":
        text.append(clause.text, style="" if clause.decided else "dim")
        text.append(f"  {read_by(clause)}", style="dim")
    else:
        text.append(_HOW[clause.how] if clause.how != "segment" else clause.text, style="" if clause.decided else "dim")
    return text


def read_by(clause: Clause) -> str:
    """What a test read, in brackets; the value alone where the test itself says of what."""
    if len(clause.readings) == 1 and clause.readings[0].text in clause.text:
        return f"[{clause.readings[0].value}]"
    return "  ".join(f"[{reading.text} = {reading.value}]" for reading in clause.readings)


def _tree(clause: Clause, label: Text) -> Tree:
    tree = Tree(label)

    def grow(under: Tree, part: Clause) -> None:
        branch = under.add(clause_line(part))
        for inner in part.parts:
            grow(branch, inner)

    grow(tree, clause)
    return tree


def _inside(one: SegmentView, now_ms: int) -> RenderableType:
    label = Text.assemble((one.name, "bold green"), f"  for {format_age(now_ms - one.since_ms)}")
    return label if one.clause is None else _tree(one.clause, label)


def _outside(segments: Sequence[SegmentView]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in segments:
        table.add_row(one.name, Text("\n").join(_why_not(one)))
    return table


def _why_not(one: SegmentView) -> Iterator[Text]:
    if one.clause is None:
        yield Text("the policy gives no text for it", style="dim")
        return
    if one.clause.holds:
        yield Text("its condition holds; the row will follow with its next event or timer", style="yellow")
    for clause in deciding([one.clause]):
        yield clause_line(clause)


def _campaigns(campaigns: Sequence[CampaignView]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("campaign", "trigger", "verdict", "score", "gates"):
        table.add_column(column, overflow="fold")
    for one in sorted(campaigns, key=lambda part: (part.verdict != "send", -part.score, part.name)):
        closed = [gate for gate in one.gates if not gate.open]
        detail = "; ".join(f"{gate.name}: {gate.detail}" for gate in closed)
        if one.verdict == "not in the audience" and one.audience is not None:
            detail = "; ".join(clause_line(part).plain for part in deciding([one.audience]))
        verdict = Text(one.verdict, style="green" if one.verdict == "send" else "red")
        table.add_row(one.name, one.trigger, verdict, f"{one.score:.3g}", Text(detail or "all open"))
    return table


def _profile(view: UserView) -> Table:
    profile, now_ms = view.profile, view.now_ms

    def ago(at_ms: int) -> str:
        return f"{format_age(now_ms - at_ms)} ago" if at_ms else "never"

    last = sorted(profile["last_ms"].items(), key=lambda item: -item[1])[:6]
    answers = f"{profile['opened']} opened, {profile['clicked']} clicked, {profile['dismissed']} dismissed"
    return _pairs(
        ("events", f"{profile['events']}, first {ago(profile['first_ms'])}, last {ago(profile['seen_ms'])}"),
        ("consent", profile["consent"] + (f", not {', '.join(profile['opted_out'])}" if profile["opted_out"] else "")),
        ("traits", _mapping(profile["traits"])),
        ("place, device", " · ".join(filter(None, (profile["timezone"], profile["device"]))) or "unknown"),
        ("orders", f"{profile['orders']}, revenue {profile['revenue']:.2f}"),
        ("notifications", f"{profile['sent']} sent, {answers}, {profile['ignored_run']} ignored in a row"),
        ("favourites", ", ".join(profile["favourites"]) or "none yet"),
        *((("persona", profile["persona"]),) if profile.get("persona") else ()),
        ("last", ", ".join(f"{name} {ago(at_ms)}" for name, at_ms in last) or "nothing that the policy names"),
    )


def _timers(view: UserView) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in view.timers:
        table.add_row(one.kind, one.campaign or one.key, f"in {format_age(one.due_ms - view.now_ms)}")
    return table


def _pairs(*rows: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value))
    return table


def _mapping(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "none"


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
