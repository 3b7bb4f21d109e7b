"""`nudge erase` and `nudge pseudonym`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli_common import Broker, fail, no_broker, out, read_settings
from app.settings import Settings

if TYPE_CHECKING:
    from app.privacy.erase import Erasing

Users = Annotated[list[str] | None, typer.Option("--user", help="Whom; may be repeated. - reads one a line.")]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to the command line, in this part of its help."""
    app.command(rich_help_panel=panel, epilog="Example: nudge erase --user u42 --wait")(erase)
    example = "NUDGE_PSEUDONYM_KEYS=a:$(openssl rand -hex 32) nudge pseudonym --user ada"
    app.command(rich_help_panel=panel, epilog=f"Example: {example}")(pseudonym)


def _names(users: list[str] | None) -> list[str]:
    names = [name for user in users or [] for name in (sys.stdin.read().splitlines() if user == "-" else [user])]
    names = list(dict.fromkeys(filter(None, names)))
    if not names:
        raise fail("nobody is named: give --user ID, or --user - and one id a line", 2)
    return names


def erase(
    user: Users = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until worker and sender have reported.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=0)] = 120.0,
    aliases: Annotated[bool, typer.Option("--aliases", help="Also the earlier ids that the user's row names.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Ask for nothing; print the receipts there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a user.")] = False,
    broker: Broker = None,
) -> None:
    """Erase users: row, timers, labels, tokens, ledger; what is left is a keyed hash that keeps them erased.

    Exit code 3 when not everybody had reported in time: the request stands all the same.
    """
    settings, names = read_settings(broker=broker), _names(user)
    try:
        erasings, complete = asyncio.run(_erase(settings, names, wait, timeout, aliases=aliases, ask=not status))
    except ValueError as exc:
        raise fail(exc, 2) from None
    for erasing in erasings:
        if as_json:
            out.print(json.dumps(_report(erasing)), highlight=False, markup=False, soft_wrap=True)
        else:
            _print(erasing)
    if not complete and (wait or status):
        raise fail("not everybody has reported yet: worker and sender must both run; see `nudge erase --status`", 3)


async def _erase(
    settings: Settings, names: list[str], wait: bool, timeout_s: float, *, aliases: bool, ask: bool
) -> tuple[list[Erasing], bool]:
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - `nudge --help` must not load Kafka clients

    from app.privacy.erase import Erasing, ReceiptBook, request_erasure  # noqa: PLC0415
    from schemas.erasures import Subjects  # noqa: PLC0415

    clients, subjects = settings.client_settings(), Subjects(settings.privacy_bytes())
    try:
        if not ask:
            erasings = [Erasing(name, "") for name in names]
            return erasings, await ReceiptBook(clients, subjects, erasings).read()
        erasings = await request_erasure(clients, subjects, names, aliases=aliases, idempotent=settings.idempotent)
        complete = wait and await ReceiptBook(clients, subjects, erasings).read(timeout_s)
    except (KafkaError, OSError, TimeoutError) as exc:
        raise no_broker(settings, exc) from None
    return erasings, complete


def _report(erasing: Erasing) -> dict[str, Any]:
    from app.privacy.erase import logs_gone_ms  # noqa: PLC0415

    parts = {
        part: {
            "atMs": receipt.at_ms,
            "partition": receipt.partition,
            "offset": receipt.offset,
            "erased": receipt.erased,
        }
        for part, receipt in sorted(erasing.receipts.items())
    }
    request = erasing.request or next((receipt.request for receipt in erasing.receipts.values()), "")
    return {
        "user": erasing.user,
        "request": request,
        "complete": erasing.done,
        "receipts": parts,
        "logsGoneMs": logs_gone_ms(time.time_ns() // 1_000_000),
    }


def _print(erasing: Erasing) -> None:
    from app.privacy.erase import LOG_TOPICS  # noqa: PLC0415

    report = _report(erasing)
    lines = [f"{erasing.user}: request {report['request'] or 'unknown'}"]
    for part, found in report["receipts"].items():
        what = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in found["erased"].items()) or "nothing"
        lines.append(f"  {part}: erased {what}, {_day(found['atMs'])}, at offset {found['offset']}")
    gone = _day(report["logsGoneMs"])
    lines.append(f"  logs ({', '.join(LOG_TOPICS)}): by retention, at the latest on {gone}")
    out.print("\n".join(lines), highlight=False, markup=False)


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def pseudonym(
    user: Users = None,
    key: Annotated[str | None, typer.Option(help="Id of the key; the last one when not given.")] = None,
    keys: Annotated[str, typer.Option(envvar="NUDGE_PSEUDONYM_KEYS", help="ID:HEX[,ID:HEX…]", show_envvar=True)] = "",
    renew: Annotated[
        bool, typer.Option(help="Print events instead, KEY|JSON, that bring the rows of earlier keys to this one.")
    ] = False,
) -> None:
    """Print the pseudonyms of users, one a line: what producers that pseudonymise at the edge use as user ids."""
    from app.privacy.pseudonyms import BadKeys, Pseudonyms, read_keys  # noqa: PLC0415
    from schemas.events import encode_event  # noqa: PLC0415

    try:
        known = read_keys(keys)
        made = Pseudonyms(known, key or next(reversed(known), ""))
    except BadKeys as exc:
        raise fail(f"NUDGE_PSEUDONYM_KEYS: {exc}", 2) from None
    for name in _names(user):
        if not renew:
            typer.echo(made.of(name))
            continue
        for event in made.renewals(name):
            typer.echo(f"{event.user_id}|{encode_event(event).decode()}")
