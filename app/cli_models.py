"""`nudge models list | rollback | release`: which version of a model is served, and going back to an older one."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from app.cli_common import Broker, fail, kafka_call, out, read_settings

if TYPE_CHECKING:  # a command imports what it runs, so that `nudge --help` is quick
    from app.learning.book import ModelBook
    from app.settings import Settings
    from schemas.models import ModelSnapshot

models_app = typer.Typer(help="See which models are served, and go back to an older version.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="The model's name.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]

FIGURES = ("recent_log_loss", "recent_auc", "recent_calibration_ratio")


@models_app.command("list", epilog="Example: nudge models list")
def models_list(as_json: Json = False, broker: Broker = None) -> None:
    """Show every model: its newest version, those kept to go back to, and which one is served."""
    settings = read_settings(broker=broker)
    rows = rows_of(read_book(settings))
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("model", "version", "made", "log loss", "AUC", "calibration", "")
    for row in rows:
        made = datetime.fromtimestamp(row["created_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        figures = [f"{row[name]:.3f}" if name in row else "–" for name in FIGURES]
        table.add_row(row["model"], str(row["version"]), made, *figures, row["state"])
    out.print(table)
    out.print("Figures are of the newest 2,000 to 4,000 examples when the version was made.", style="dim")


@models_app.command("rollback", epilog="Example: nudge models rollback open --reason 'scores rose overnight'")
def models_rollback(
    model: Model = "open",
    to: Annotated[int | None, typer.Option("--to", help="A kept version; the newest kept when not given.")] = None,
    reason: Annotated[str, typer.Option(help="Why; shown by `list`.")] = "",
    broker: Broker = None,
) -> None:
    """Have all workers serve a kept version, until `nudge models release`. The learner goes on learning."""
    settings = read_settings(broker=broker)
    book = read_book(settings)
    versions = [kept.version for kept in book.kept(model)]
    if not versions:
        raise fail(f"model {model!r} has no kept version", 1)
    version = versions[0] if to is None else to
    if version not in versions:
        raise fail(f"version {version} of {model!r} is not kept; kept are {', '.join(map(str, versions))}", 1)
    _pin(settings, model, version, reason)
    out.print(f"{model} is served at version {version}; `nudge models release {model}` ends that", highlight=False)


@models_app.command("release", epilog="Example: nudge models release open")
def models_release(model: Model = "open", broker: Broker = None) -> None:
    """Serve the newest version again."""
    settings = read_settings(broker=broker)
    if read_book(settings).pin(model) is None:
        raise fail(f"model {model!r} is not pinned: its newest version is served", 1)
    _pin(settings, model, 0, "")
    out.print(f"{model} is served at its newest version", highlight=False)


def rows_of(book: ModelBook) -> list[dict[str, Any]]:
    """One row a version, newest first: name, version, time, recent figures, and whether it is served."""
    rows = []
    for model in book.models():
        newest, served, pinned = book.newest(model), book.served(model), book.pin(model)
        versions = [one for one in (newest, *book.kept(model)) if one is not None]
        for one in versions:
            state = "newest" if one is newest else "kept"
            if one is served:
                state += ", served"
                if pinned is not None and one is not newest:
                    state += f" (pinned by {pinned[1].by}{': ' + pinned[1].reason if pinned[1].reason else ''})"
            rows.append(
                {
                    "model": model,
                    "version": one.version,
                    "created_ms": one.created_ms,
                    "state": state,
                    **{name: one.metrics[name] for name in FIGURES if name in one.metrics},
                }
            )
    return rows


def read_book(settings: Settings) -> ModelBook:
    """The topic as it stands. Ends the command when its snapshots are not signed with our secret."""
    from app.learning.book import ModelBook  # noqa: PLC0415

    book = ModelBook(settings.secret_bytes())
    rejected = kafka_call(settings, lambda _security: _fill(settings, book))
    if rejected and not book.models():
        raise fail("the snapshots on the topic are not signed with NUDGE_SECRET", 1)
    return book


async def _fill(settings: Settings, book: ModelBook) -> int:
    from msgspec import MsgspecError  # noqa: PLC0415

    from app.stream.broadcast import read_to_end  # noqa: PLC0415
    from app.topics import TopicRefused  # noqa: PLC0415
    from schemas.models import BadSignature  # noqa: PLC0415
    from schemas.topics import MODELS  # noqa: PLC0415

    rejected = 0

    def keep(_key: bytes | None, value: bytes | None, _offset: int) -> None:
        nonlocal rejected
        try:
            book.apply(value or b"")
        except (BadSignature, MsgspecError):
            rejected += 1

    try:
        await read_to_end(settings.client_settings(), MODELS, keep, 20.0)
    except TimeoutError as exc:
        raise TopicRefused(f"{exc}; is it there? `nudge topics create` makes it") from None
    return rejected


def _pin(settings: Settings, model: str, version: int, reason: str) -> None:
    from app.learning.book import Pin, pin_record  # noqa: PLC0415

    record = pin_record(model, version, Pin("operator", reason), time.time_ns() // 1_000_000)
    kafka_call(settings, lambda _security: _publish(settings, record))


async def _publish(settings: Settings, record: ModelSnapshot) -> None:
    from aiokafka import AIOKafkaProducer  # noqa: PLC0415

    from app.stream.started import started  # noqa: PLC0415
    from schemas.models import encode_snapshot  # noqa: PLC0415
    from schemas.topics import MODELS  # noqa: PLC0415

    value = encode_snapshot(record, settings.secret_bytes())
    producer = AIOKafkaProducer(acks="all", enable_idempotence=settings.idempotent, **settings.client_settings())
    async with started(producer):
        await producer.send_and_wait(MODELS, value, key=record.model.encode())
