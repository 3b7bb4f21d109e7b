"""`nudge doctor`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.markup import escape

from app.cli_common import Broker, out, read_settings

if TYPE_CHECKING:
    from app.operate.findings import Finding

_STYLE: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    broker: Broker = None,
) -> None:
    """Look at everything that has to be right: broker, topics, clock, disk, secrets, policy, models. Changes nothing.

    Exit code 1 when something fails; warnings do not count.
    """
    from app.operate.doctor import examine  # noqa: PLC0415 - `nudge --help` must not load Kafka clients
    from app.runtime import runtime  # noqa: PLC0415

    settings = read_settings(broker=broker)
    found = asyncio.run(examine(settings, runtime()))
    if as_json:
        out.print_json(msgspec.json.encode(found).decode())
    else:
        for finding in found:
            _print(finding)
    if any(finding.status == "fail" for finding in found):
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    style = _STYLE[finding.status]
    out.print(
        f"[{style}]{finding.status:>4}[/]  {finding.check:<9}  {escape(finding.says)}", highlight=False, soft_wrap=True
    )
    if finding.mend:
        out.print(f"{'':>17}→ {escape(finding.mend)}", highlight=False, soft_wrap=True)
