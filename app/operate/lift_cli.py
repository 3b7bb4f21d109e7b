"""`nudge topics lift`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from app.cli_common import Broker, fail, out, read_settings


def lift(
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it is only said what would be done.")] = False,
    mirrored: Annotated[
        bool,
        typer.Option("--mirrored", help="The topic was mirrored, or copied, from the old one."),
    ] = False,
    broker: Broker = None,
) -> None:
    """After `events` was made anew: bring its offsets beyond those that rows have seen, so that no event is passed by.

    All workers must be stopped; producers may go on. What stands in `events` already is kept, behind. Needs Kafka's
    transactions. Exit code 1 when workers run, or the broker refuses.
    """
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - `nudge --help` must not load Kafka clients

    from app.operate import lift as lifting  # noqa: PLC0415

    settings = read_settings(broker=broker)
    client = settings.client_settings()

    async def run() -> None:
        if yes and (running := await lifting.members(client, settings.app_id)):
            why = f"{running} workers are in the group {settings.app_id} (NUDGE_APP_ID): stop them first"
            raise fail(f"{why} (one that was killed is let go when its session has run out, within 30 s)", 1)
        lifts = await lifting.examine(client, settings.app_id, mirrored=mirrored)
        for what in lifts:
            out.print(
                f"events[{what.partition}]: rows have seen offsets up to {what.seen - 1}, and {what.begin} to "
                f"{what.end - 1} are another log's: {what.filler} offsets are to be used up",
                highlight=False,
                soft_wrap=True,
            )
            if what.known and not mirrored:
                out.print(
                    f"events[{what.partition}]: rows have folded the event at {what.known - 1} and may have folded "
                    "those before it, elsewhere: if the topic was mirrored, say --mirrored, or they count twice",
                    highlight=False,
                    soft_wrap=True,
                )
            if yes:
                copied = await lifting.lift(client, what, settings.app_id)
                out.print(f"events[{what.partition}]: lifted; {copied} records stand behind now", highlight=False)
        if not lifts:
            out.print("events is the log that the rows were folded from: there is nothing to do")
        elif not yes:
            out.print("nothing was changed: stop all workers, then `nudge topics lift --yes`")

    try:
        asyncio.run(run())
    except (KafkaError, OSError) as exc:
        raise fail(f"{settings.broker} (NUDGE_BROKER) refuses: {exc!r}", 1) from None
