"""`nudge dead-letters`: list, show and replay."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from app.cli_common import Broker, fail, out, read_settings
from app.core.durations import parse_duration_ms
from app.settings import Settings

if TYPE_CHECKING:
    from app.operate.dead_letters import Filter, Letter, Letters

dead_letters_app = typer.Typer(help="Records that could not be processed.", no_args_is_help=True)

Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only this reason; may be repeated.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Only of this topic; may be repeated.")]
Since = Annotated[str | None, typer.Option(help="Only of the last 15m, 6h, 2d, …")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Place = Annotated[str, typer.Argument(help="PARTITION-OFFSET, as `nudge dead-letters list` has it.")]
Places = Annotated[list[str] | None, typer.Argument(help="PARTITION-OFFSET of single letters.")]


def _call(settings: Settings, call: Awaitable[Any]) -> Any:
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - `nudge --help` must not load Kafka clients

    async def run() -> Any:
        return await call

    try:
        return asyncio.run(run())
    except (KafkaError, OSError, TimeoutError) as exc:
        raise fail(f"{settings.broker} (NUDGE_BROKER) does not answer as it should: {type(exc).__name__}", 1) from None


def _filter(places: list[str] | None, reasons: list[str] | None, topics: list[str] | None, since: str | None) -> Filter:
    from app.operate.dead_letters import Filter  # noqa: PLC0415

    since_ms = 0
    if since:
        try:
            since_ms = time.time_ns() // 1_000_000 - parse_duration_ms(since)
        except ValueError as exc:
            raise fail(f"--since: {exc}") from None
    return Filter(places or (), reasons or (), topics or (), since_ms)


@dead_letters_app.command("list", epilog="Example: nudge dead-letters list --since 24h --reason key_mismatch")
def list_letters(
    reason: Reasons = None,
    topic: Topics = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(help="Rows: the newest letters.", min=0, max=10_000)] = 20,
    as_json: AsJson = False,
    broker: Broker = None,
) -> None:
    """Count dead letters by topic and reason, and list the newest. Shows nothing of their content."""
    from app.operate.dead_letters import Letters, read_letters  # noqa: PLC0415

    settings = read_settings(broker=broker)
    letters = Letters(_filter(None, reason, topic, since), contents=False, limit=limit)
    _call(settings, read_letters(settings.client_settings(), letters))
    if as_json:
        counts = [{"topic": at, "reason": why, "count": number} for (at, why), number in letters.tally.most_common()]
        rows = [_row(found, letters) for found in reversed(letters.kept)]
        out.print_json(json.dumps({"counts": counts, "letters": rows}))
        return
    if not letters.tally:
        out.print("no dead letters")
        return
    out.print(_table(("count", "topic", "reason"), [(n, at, why) for (at, why), n in letters.tally.most_common()]))
    if letters.kept:
        columns = ("letter", "at", "of", "reason", "detail", "replayed")
        out.print(_table(columns, [tuple(_row(found, letters).values()) for found in reversed(letters.kept)]))


def _row(found: Letter, letters: Letters) -> dict[str, str]:
    letter = found.letter
    replayed_ms = letters.replayed.get(found.place)
    return {
        "letter": found.place,
        "at": _when(letter.at_ms),
        "of": f"{letter.topic} {letter.partition}-{letter.offset}",
        "reason": letter.reason,
        "detail": letter.detail,
        "replayed": _when(replayed_ms) if replayed_ms else "",
    }


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column == "count" else "left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    return table


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


@dead_letters_app.command("show", epilog="Example: nudge dead-letters show 0-17")
def show(place: Place, broker: Broker = None) -> None:
    """Print one dead letter with its key and value. They are personal data."""
    from app.operate.dead_letters import Letters, read_letters  # noqa: PLC0415

    settings = read_settings(broker=broker)
    letters = Letters(_filter([place], None, None, None), contents=True)
    _call(settings, read_letters(settings.client_settings(), letters))
    if not letters.kept:
        raise fail(f"there is no dead letter {place}; it may have expired", 1)
    found = letters.kept[0]
    for name, value in _row(found, letters).items():
        out.print(f"{name:>9}  {value}", highlight=False, markup=False)
    out.print(f"{'key':>9}  {_text(found.key)}", highlight=False, markup=False)
    out.print(f"{'value':>9}  {_text(found.value)}", highlight=False, markup=False, soft_wrap=True)


def _text(part: bytes | None) -> str:
    return "(none)" if part is None else part.decode(errors="backslashreplace")


@dead_letters_app.command("replay", epilog="Example: nudge dead-letters replay --reason key_mismatch --dry-run")
def replay_letters(
    places: Places = None,
    reason: Reasons = None,
    topic: Topics = None,
    since: Since = None,
    maximum: Annotated[int, typer.Option("--max", help="Replay at most so many, oldest first.", min=1)] = 100,
    again: Annotated[bool, typer.Option("--again", help="Also those that were replayed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    broker: Broker = None,
) -> None:
    """Give dead letters back to the topic and partition that they came from, each once.

    Whose user was erased meanwhile, and what was too large to be kept whole, stays where it is.
    """
    from app.operate.dead_letters import Letters, read_erased, read_letters, refusal, replay  # noqa: PLC0415
    from schemas.erasures import Subjects  # noqa: PLC0415

    if not (places or reason or topic or since):
        raise fail("say which: PARTITION-OFFSET, --reason, --topic or --since")
    settings = read_settings(broker=broker)
    clients = settings.client_settings()
    letters = Letters(_filter(places, reason, topic, since), contents=True)
    _call(settings, read_letters(clients, letters))
    erased = _call(settings, read_erased(clients, Subjects(settings.privacy_bytes())))
    chosen: list[Letter] = []
    refused: list[tuple[str, str]] = []
    for found in letters.kept:
        why = refusal(found, letters, erased, again=again)
        if why:
            refused.append((found.place, why))
        elif len(chosen) < maximum:
            chosen.append(found)
    for found_place, why in refused[:20]:
        out.print(f"{found_place}: not replayed: {why}", highlight=False, markup=False)
    if len(refused) > 20:
        out.print(f"… and {len(refused) - 20} more that are not replayed", highlight=False)
    if dry_run:
        for found in chosen:
            out.print(
                f"{found.place}: would be replayed to {_row(found, letters)['of']}", highlight=False, markup=False
            )
    else:
        now_ms = time.time_ns() // 1_000_000
        done = _call(settings, replay(clients, chosen, now_ms=now_ms, idempotent=settings.idempotent))
        out.print(f"{done} replayed", highlight=False)
    left = letters.tally.total() - len(chosen) - len(refused)
    if left:
        out.print(f"{left} more are meant: run it again", highlight=False)
    if refused and not chosen:
        raise typer.Exit(1)
