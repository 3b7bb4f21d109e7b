"""`nudge policy record | simulate`: what has happened, as a file, and what another policy would have made of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from app.cli_common import Broker, err, fail, kafka_call, no_broker, out, read_settings
from schemas.topics import CATALOG, EVENTS

if TYPE_CHECKING:  # a command imports what it runs, so that `nudge --help` is quick
    from app.core.plan import Plan
    from app.learning.book import ModelBook
    from app.settings import Settings
    from app.trial.compare import Report
    from app.trial.records import Recorded

Events = Annotated[Path | None, typer.Option("--events", help="Recorded events, JSON lines.", exists=True)]
FromTopic = Annotated[bool, typer.Option("--from-topic", help="All that the topics `events` and `catalog` hold now.")]
PolicyFile = typer.Option(help="Policy file.", exists=True, dir_okay=False)


class ModelsFrom(StrEnum):
    """Where the models of a trial come from."""

    LEARN = "learn"
    TOPIC = "topic"
    UNTAUGHT = "untaught"


_SOURCE = {"learned": "learned from the recording", "topic": "of the topic, as it is now", "untaught": "untaught"}
_FROM = {ModelsFrom.LEARN: "learned", ModelsFrom.TOPIC: "topic", ModelsFrom.UNTAUGHT: "untaught"}
_FIGURES = ("in both", "only ", "entered ", "before", "after", "difference", "begins ", "examples ")
_CHUNK = 500
_FIRST_DAY = datetime(2017, 3, 1, tzinfo=UTC)


def register(policy_app: typer.Typer) -> None:
    """Add the commands."""
    example = "Example: nudge policy simulate --policy new.yaml --baseline shop.yaml --events week.jsonl"
    policy_app.command("simulate", epilog=example)(simulate)
    policy_app.command("record", epilog="Example: nudge policy record week.jsonl --from-topic")(record)


def record(
    file: Annotated[Path, typer.Argument(help="File to write, JSON lines.")],
    from_topic: FromTopic = False,
    demo: Annotated[bool, typer.Option("--demo", help="The demo's real purchases, and invented visits.")] = False,
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Of --demo: the first day.")] = _FIRST_DAY,
    days: Annotated[float, typer.Option(help="Of --demo.", min=0.1, max=300)] = 14.0,
    users: Annotated[int, typer.Option(help="Of --demo: households.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of --demo: of the visits.")] = 7,
    broker: Broker = None,
) -> None:
    """Write events to a file on which policies can be tried."""
    from app.trial.records import write_recording  # noqa: PLC0415

    if from_topic == demo:
        raise fail("give either --from-topic or --demo")
    settings = read_settings(broker=broker)
    source = _demo(start, days, users, seed) if demo else _topic(settings)
    written, left_out = write_recording(file, source)
    out.print(
        f"{written:,} records in {file}; {left_out:,} records that are neither events nor items left out",
        highlight=False,
    )


def simulate(
    policy: Annotated[Path, PolicyFile],
    baseline: Annotated[Path | None, typer.Option(help="Compare with this file.", exists=True, dir_okay=False)] = None,
    events: Events = None,
    from_topic: FromTopic = False,
    catalog: Annotated[
        Path | None,
        typer.Option(help="Records of the catalog, JSON lines, beside those of the recording.", exists=True),
    ] = None,
    count_every: Annotated[
        str | None, typer.Option(help="How often users are counted for percentiles; else as the workers do.")
    ] = None,
    models: Annotated[
        ModelsFrom, typer.Option(help="learn: from the recording; topic: serve what `models` holds; untaught: neither.")
    ] = ModelsFrom.LEARN,
    learn_every: Annotated[
        str, typer.Option(help="How often what was learned is served, by the clock of the recording.")
    ] = "1h",
    share: Annotated[float, typer.Option(help="Share of the users, by a stable hash.", min=0.0001, max=1)] = 1.0,
    examples: Annotated[int, typer.Option(help="Users to show of those about whom the decisions differ.", min=0)] = 5,
    show_users: Annotated[bool, typer.Option("--show-users", help="Their ids instead of keyed hashes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    broker: Broker = None,
) -> None:
    """Run a policy over recorded events, and say how it decides otherwise than the baseline.

    Without --baseline it is compared with the version in force, if events come from the topic, else with nothing.
    """
    from app.learning.serving import prior_scorer  # noqa: PLC0415
    from app.trial.compare import compare  # noqa: PLC0415
    from app.trial.order import by_time  # noqa: PLC0415
    from app.trial.run import Trial  # noqa: PLC0415
    from schemas.erasures import Subjects  # noqa: PLC0415

    if from_topic == (events is not None):
        raise fail("give either --events or --from-topic")
    settings = read_settings(broker=broker)
    after = _load(policy)
    before = _load(baseline) if baseline is not None else _in_force(settings, after) if from_topic else _nothing()
    subjects = Subjects(settings.privacy_bytes())
    every_ms, items_max = _count_every_ms(count_every, settings), settings.catalog_items_max
    learn_ms = _duration_ms("--learn-every", learn_every) if models is ModelsFrom.LEARN else 0
    book = _book(settings) if models is ModelsFrom.TOPIC else None
    trials = [
        Trial(
            plan,
            prior_scorer(),
            subjects,
            counted_every_ms=every_ms,
            items_max=items_max,
            learned_every_ms=learn_ms,
            book=book,
        )
        for plan in (before, after)
    ]
    source = _topic(settings) if events is None else _file(events)
    more = _file(catalog, CATALOG) if catalog is not None else ()
    for chunk in _chunks(by_time(_sample(itertools.chain(more, source), share))):
        for trial in trials:
            trial.take(chunk)
    for trial in trials:
        trial.finish()

    def name_of(user: str) -> str:
        return user if show_users else subjects.of(user.encode()).hex()[:12]

    report = compare(trials[0], trials[1], name_of, examples_max=examples, models_from=_FROM[models])
    if as_json:
        import msgspec  # noqa: PLC0415

        typer.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        _show(report)
    if trials[1].wants_catalog and not report.catalog_changes:
        err.print(
            "no change of the catalog was recorded, so its triggers had nothing to tell: give --catalog FILE",
            style="yellow",
        )


def _count_every_ms(given: str | None, settings: Settings) -> int:
    if given is None:
        return max(1, int(settings.percentiles_interval_s * 1000 * settings.make_clock().rate))
    return _duration_ms("--count-every", given)


def _duration_ms(option: str, given: str) -> int:
    from app.core.durations import parse_duration_ms  # noqa: PLC0415

    try:
        return parse_duration_ms(given)
    except ValueError as exc:
        raise fail(f"{option}: {exc}") from None


def _book(settings: Settings) -> ModelBook:
    from app.cli_models import read_book  # noqa: PLC0415

    book = read_book(settings)
    if not book.models():
        raise fail("the topic `models` has no snapshot yet", 1)
    return book


def _chunks(records: Iterable[Recorded]) -> Iterator[list[Recorded]]:
    source = iter(records)
    while chunk := list(itertools.islice(source, _CHUNK)):
        yield chunk


def _sample(records: Iterable[Recorded], share: float) -> Iterator[Recorded]:
    from app.core.ids import BUCKETS, bucket  # noqa: PLC0415

    for each in records:
        key = (each.key or b"").decode(errors="replace")
        if share >= 1.0 or each.topic == CATALOG or bucket(key, "simulate") < share * BUCKETS:
            yield each


def _load(file: Path) -> Plan:
    from app.policy.errors import PolicyErrors  # noqa: PLC0415
    from app.policy.load import load_policy  # noqa: PLC0415

    try:
        return load_policy(file)
    except PolicyErrors as exc:
        err.print(str(exc), markup=False, highlight=False)
        raise typer.Exit(2) from None


def _nothing() -> Plan:
    from app.core.plan import Plan  # noqa: PLC0415

    return Plan(version="none")


def _in_force(settings: Settings, after: Plan) -> Plan:
    """What the workers serve of the same policy, if it came by the topic."""
    from app.policy.errors import PolicyErrors  # noqa: PLC0415
    from app.policy.load import load_policy_text  # noqa: PLC0415
    from app.policy_topic import read_log  # noqa: PLC0415

    known: Any = kafka_call(settings, lambda _: read_log(settings.client_settings(), settings.secret_bytes()))
    head = known.head(after.name)
    if head is None:
        return _nothing()
    try:
        return load_policy_text(head.text, f"{head.policy}@{head.serial}")
    except PolicyErrors as exc:
        raise fail(f"the version in force does not load: {exc}", 1) from None


def _file(path: Path, topic: str = EVENTS) -> Iterator[Recorded]:
    from app.trial.records import BadRecording, read_recording  # noqa: PLC0415

    try:
        yield from read_recording(path, topic)
    except BadRecording as exc:
        raise fail(exc, 1) from None


def _topic(settings: Settings) -> Iterator[Recorded]:
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from app.trial.sources import from_topic  # noqa: PLC0415

    try:
        yield from from_topic(settings.client_settings(), settings.make_clock().at_ms)
    except (KafkaError, OSError) as exc:
        raise no_broker(settings, exc) from None


def _demo(start: datetime, days: float, users: int, seed: int) -> Iterator[Recorded]:
    from app.demo.journey import JourneyMissing  # noqa: PLC0415
    from app.trial.sources import from_demo  # noqa: PLC0415

    try:
        yield from from_demo(start.date(), days, users, seed)
    except (JourneyMissing, ValueError) as exc:
        raise fail(exc, 1) from None


def _show(report: Report) -> None:
    out.print(f"{report.before} → {report.after}: {report.events:,} events, {report.users:,} users", highlight=False)
    _table(
        ("segment", "in both", "only before", "only after", "entered before", "after"),
        [(r.segment, r.both, r.only_before, r.only_after, r.entered_before, r.entered_after) for r in report.segments],
    )
    _table(
        ("campaign", "decision", "reason", "before", "after", "difference"),
        [(r.campaign, r.action, r.reason, r.before, r.after, f"{r.after - r.before:+,}") for r in report.decisions],
    )
    if report.thresholds:
        _table(
            ("percentile", "begins before", "after"),
            [(r.percentile, _number(r.before), _number(r.after)) for r in report.thresholds],
        )
    _show_models(report)
    if report.catalog_changes:
        out.print(f"{report.catalog_changes:,} changes of the catalog were told", highlight=False)
    out.print(f"decided otherwise about {report.users_differing:,} of {report.users:,} users", highlight=False)
    for example in report.examples:
        out.print(f"  {example.user}", highlight=False, markup=False)
        for sign, decisions in (("-", example.only_before), ("+", example.only_after)):
            for said in decisions:
                at = datetime.fromtimestamp(said.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
                reason = f" ({said.reason})" if said.reason else ""
                out.print(f"    {sign} {at} {said.action} {said.campaign}{reason}", highlight=False, markup=False)


def _show_models(report: Report) -> None:
    if report.models:
        _table(
            (f"model ({_SOURCE[report.models_from]})", "examples before", "after"),
            [(r.model, *("" if n is None else n for n in (r.before, r.after))) for r in report.models],
        )
    elif report.models_from != "learned":
        out.print(f"models: {_SOURCE[report.models_from]}", highlight=False)
    if report.personas:
        out.print(f"personas at the end: {', '.join(report.personas)}", highlight=False, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.6g}"


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column.startswith(_FIGURES) else "left")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    out.print(table)
