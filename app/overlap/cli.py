"""`nudge segments overlap`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from app.cli_common import Broker, err, fail, kafka_call, no_broker, out, read_settings

if TYPE_CHECKING:  # a command imports what it runs, so that `nudge --help` is quick
    from app.core.plan import Plan
    from app.overlap.membership import Memberships
    from app.overlap.report import OverlapReport
    from app.settings import Settings

segments_app = typer.Typer(help="Look at segments.", no_args_is_help=True)

_KINDS = {"same": "nearly the same", "a_inside_b": "first inside second", "b_inside_a": "second inside first"}


@segments_app.callback()
def _group() -> None:
    """Look at segments."""


@segments_app.command(epilog="Example: nudge segments overlap --users-min 500")
def overlap(
    policy: Annotated[Path | None, typer.Option(help="Policy file; else NUDGE_POLICY, or what is in force.")] = None,
    users_min: Annotated[int | None, typer.Option(help="Warn of smaller segments; else as the policy says.")] = None,
    pairs: Annotated[int, typer.Option(help="Pairs to show, the most alike first.", min=0)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON: everything.")] = False,
    broker: Broker = None,
) -> None:
    """Show how large segments are, which overlap, and which campaigns contend; read from the rows' changelog.

    Exact for up to 500,000 users; with more, from a sample whose share is stated.
    """
    from app.overlap.report import report  # noqa: PLC0415

    settings = read_settings(broker=broker)
    plan = policy_of(settings, policy or settings.policy)
    found = report(read_memberships(settings), plan, users_min=users_min)
    if as_json:
        import msgspec  # noqa: PLC0415

        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        _show(found, pairs)


def policy_of(settings: Settings, file: Path | None) -> Plan:
    """The version in force on the topic, as for a worker; else the file."""
    from app.policy.errors import PolicyErrors  # noqa: PLC0415
    from app.policy.load import load_policy, load_policy_text  # noqa: PLC0415
    from app.policy_topic import read_log  # noqa: PLC0415

    try:
        given = load_policy(file) if file is not None else None
        known: Any = kafka_call(settings, lambda _: read_log(settings.client_settings(), settings.secret_bytes()))
        names = known.names()
        name = given.name if given is not None else settings.policy_name or (names[0] if len(names) == 1 else "")
        head = known.head(name)
        if head is not None:
            return load_policy_text(head.text, f"{head.policy}@{head.serial}")
    except PolicyErrors as exc:
        err.print(str(exc), markup=False, highlight=False)
        raise typer.Exit(2) from None
    if given is None:
        raise fail("which policy? give --policy FILE, or set NUDGE_POLICY or NUDGE_POLICY_NAME")
    return given


def read_memberships(settings: Settings) -> Memberships:
    """Who is in which segments, from the rows' changelog."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from app.overlap.membership import Memberships  # noqa: PLC0415
    from app.whole_topic import read_whole  # noqa: PLC0415
    from schemas.topics import PROFILES_CHANGELOG  # noqa: PLC0415

    found = Memberships()
    try:
        for records in read_whole(settings.client_settings(), PROFILES_CHANGELOG):
            for record in records:
                take(found, record.key, record.value)
    except (KafkaError, OSError) as exc:
        raise no_broker(settings, exc) from None
    return found


def take(found: Memberships, key: bytes | None, raw: bytes | None) -> None:
    """Take in a record of the changelog. One that is no row is counted, and its user left out."""
    from app.core.erasure import is_mark  # noqa: PLC0415
    from app.core.row_heads import BadRow, peek  # noqa: PLC0415

    if key is None or is_mark(key):
        return
    try:
        found.put(key, None if raw is None else peek(raw).segments)
    except BadRow:
        found.unreadable += 1
        found.put(key, None)


def _show(found: OverlapReport, pairs_max: int) -> None:
    how = "" if found.share == 1 else f", estimated from {found.share:.3%} of them"
    out.print(f"{found.policy}: {found.users:,} users{how}; {found.in_none:,} in no segment", highlight=False)
    if found.unreadable:
        why = "left out: bytes that are no row (docs/runbooks/row-unreadable.md)"
        out.print(f"[yellow]{found.unreadable:,} records of the changelog were {why}[/]", highlight=False)
    sizes = Table(box=None, pad_edge=False)
    for column, side in (("segment", "left"), ("users", "right"), ("of all", "right"), ("", "left")):
        sizes.add_column(column, justify=side)  # type: ignore[arg-type]
    for size in found.segments:
        note = f"[yellow]fewer than {size.users_min:,}[/]" if size.too_small else ""
        sizes.add_row(size.segment, f"{size.users:,}", f"{size.of_all:.1%}", note)
    out.print(sizes)
    table = Table(box=None, pad_edge=False)
    for column in ("segment", "and", "both", "jaccard", "first in second", "second in first", "lift", ""):
        table.add_column(column, justify="left" if column in ("segment", "and", "") else "right")
    for pair in found.pairs[:pairs_max]:
        shares = (f"{pair.jaccard:.2f}", f"{pair.a_in_b:.0%}", f"{pair.b_in_a:.0%}", f"{pair.lift:.1f}")
        table.add_row(pair.a, pair.b, f"{pair.both:,}", *shares, _KINDS.get(pair.kind, ""))
    out.print(table)
    for contest in found.contests:
        out.print(
            f"campaigns {contest.a} and {contest.b} ({contest.category}) contend for {contest.users:,} users",
            highlight=False,
        )
    for hint in found.hints:
        out.print(f"[yellow]{hint}[/]", highlight=False)
