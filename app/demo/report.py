"""The demo's result: as JSON for programs, as tables for people."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from app.demo.count import Tally, Verdict
from app.demo.quality import Quality, percentile, quality_of
from schemas.events import (
    NOTIFICATION_CLICKED,
    NOTIFICATION_DISMISSED,
    NOTIFICATION_OPENED,
    NOTIFICATIONS_DISABLED,
)

WHAT_IS_REAL: Final = (
    "Real: purchases, prices and demographics (Complete Journey study, 2017). Simulated: browsing, carts left behind, "
    "markdowns and what is sold out, and people's answers to notifications."
)


class Model(msgspec.Struct, frozen=True):
    """Quality of the probabilities logged with decisions, over all matured examples from a cold start.

    `auc_possible` is that of the audience's hidden probabilities on the same examples: no model can expect more.
    `last_half` judges the later half of the decisions, when the model had something to go by.
    """

    auc: float | None
    log_loss: float | None
    log_loss_constant: float | None
    calibration_ratio: float | None
    examples: int
    auc_possible: float | None = None
    last_half: Quality | None = None


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds of real time."""

    p50: float | None
    p99: float | None
    decisions: int = 0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything counted from the topics; see `app.demo.count` for `lost` and `duplicates`."""

    events_in: int
    events_per_second: float
    users: int
    decisions_sent: int
    decisions_suppressed: dict[str, int]
    sends: int
    opens: int
    clicks: int
    dismissals: int
    opt_outs: int
    dead_letters: dict[str, int]
    segment_sizes: dict[str, int]
    model: Model
    event_to_decision_ms: Latency
    lost: int
    duplicates: int
    verdict: Verdict
    repeated_decisions: int
    drained: bool
    replay_seconds: float
    event_time_days: float
    seed: int
    worker_rss_bytes: int | None = None
    decisions_by_campaign: dict[str, int] = {}
    catalog_items: int = 0
    catalog_changes: int = 0
    personas: dict[str, int] = {}
    """Users by the persona that they have at the end."""


def summarise(
    tally: Tally,
    verdict: Verdict,
    truth: dict[str, float],
    *,
    replay_s: float,
    event_time_days: float,
    drained: bool,
    seed: int,
    worker_rss_bytes: int | None,
    items: int = 0,
    changes: int = 0,
) -> Summary:
    """Put the figures together.

    Parameters
    ----------
    truth
        By decision id, the hidden probability of an open (see `app.demo.audience`).
    drained
        Whether the workers caught up with everything in time; when not, `lost` counts what they had still to do.
    items, changes
        Of the catalog.
    """
    latencies = sorted(tally.latencies())
    return Summary(
        events_in=tally.events,
        events_per_second=round(tally.events / replay_s, 1) if replay_s else 0.0,
        users=tally.users,
        decisions_sent=tally.decisions_sent,
        decisions_suppressed=dict(tally.suppressed.most_common()),
        sends=tally.sends,
        opens=tally.event_names[NOTIFICATION_OPENED],
        clicks=tally.event_names[NOTIFICATION_CLICKED],
        dismissals=tally.event_names[NOTIFICATION_DISMISSED],
        opt_outs=tally.event_names[NOTIFICATIONS_DISABLED],
        dead_letters=dict(tally.dead_letters.most_common()),
        segment_sizes=tally.segment_sizes(),
        model=model_quality(tally, truth),
        event_to_decision_ms=Latency(percentile(latencies, 0.5), percentile(latencies, 0.99), len(latencies)),
        lost=verdict.lost,
        duplicates=verdict.duplicates,
        verdict=verdict,
        repeated_decisions=tally.repeated_decisions,
        drained=drained,
        replay_seconds=round(replay_s, 1),
        event_time_days=round(event_time_days, 2),
        seed=seed,
        worker_rss_bytes=worker_rss_bytes,
        decisions_by_campaign=dict(tally.by_campaign.most_common()),
        catalog_items=items,
        catalog_changes=changes,
        personas=tally.personas(),
    )


def model_quality(tally: Tally, truth: dict[str, float]) -> Model:
    """Judge the scores in the outcomes, and what was possible at best."""
    examples = sorted(tally.examples.items(), key=lambda item: item[1][2])
    scored = [(score, label) for _, (score, label, _) in examples]
    overall = quality_of(scored)
    possible = quality_of([(truth[name], label) for name, (_, label, _) in examples if name in truth])
    return Model(
        auc=overall.auc,
        log_loss=overall.log_loss,
        log_loss_constant=overall.log_loss_constant,
        calibration_ratio=overall.calibration_ratio,
        examples=overall.examples,
        auc_possible=possible.auc,
        last_half=quality_of(scored[len(scored) // 2 :]),
    )


def write_summary(summary: Summary, path: Path) -> None:
    """Write the summary as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")


def tables(summary: Summary) -> RenderableType:
    """The summary for people."""
    flow = pairs(
        "what happened",
        [
            ("events", f"{summary.events_in:,} ({summary.events_per_second:,.0f} a second)"),
            ("event time", f"{summary.event_time_days:.1f} days in {summary.replay_seconds:.0f} s"),
            ("users", f"{summary.users:,}"),
            ("decisions to send", f"{summary.decisions_sent:,}"),
            ("sent", f"{summary.sends:,}"),
            ("opened / clicked", f"{summary.opens:,} / {summary.clicks:,}"),
            ("dismissed / switched off", f"{summary.dismissals:,} / {summary.opt_outs:,}"),
            ("catalog: items / changes", f"{summary.catalog_items:,} / {summary.catalog_changes:,}"),
        ],
    )
    model, latency = summary.model, summary.event_to_decision_ms
    late = model.last_half or quality_of(())
    quality = pairs(
        "how well",
        [
            ("event → decision p50 / p99", f"{_number(latency.p50, 0)} / {_number(latency.p99, 0)} ms"),
            ("AUC, last half · all · at best", _dotted(late.auc, model.auc, model.auc_possible)),
            ("log loss, last half · all", _dotted(late.log_loss, model.log_loss)),
            ("log loss of the best constant", _number(model.log_loss_constant)),
            ("predicted / opened, last half · all", _dotted(late.calibration_ratio, model.calibration_ratio)),
            ("examples learned", f"{model.examples:,}"),
            ("events lost" if summary.drained else "events not done in time", _verdict_text(summary.lost)),
            ("done twice", _verdict_text(summary.duplicates)),
        ],
    )
    suppressed = pairs("not sent, because", _counts(summary.decisions_suppressed))
    segments = pairs("users in segments", _counts(summary.segment_sizes))
    letters = pairs("dead letters (on purpose)", _counts(summary.dead_letters))
    campaigns = pairs("to send, by campaign", _counts(summary.decisions_by_campaign))
    personas = pairs("users by persona", _counts(summary.personas))
    upper = Columns([flow, quality], padding=(0, 4))
    middle = Columns([campaigns, personas], padding=(0, 4))
    lower = Columns([segments, suppressed, letters], padding=(0, 4))
    return Group(
        Panel(Group(upper, Text(), middle, Text(), lower), title="nudge demo"), Text(WHAT_IS_REAL, style="italic")
    )


def pairs(title: str, rows: list[tuple[str, str]]) -> Table:
    """A small table of names and values."""
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, value in rows or [("none", "")]:
        table.add_row(name, value)
    return table


def _counts(counts: dict[str, int]) -> list[tuple[str, str]]:
    return [(name, f"{number:,}") for name, number in counts.items()]


def _dotted(*values: float | None) -> str:
    return " · ".join(_number(value) for value in values)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _verdict_text(number: int) -> str:
    return "[green]0[/]" if number == 0 else f"[bold red]{number:,}[/]"
